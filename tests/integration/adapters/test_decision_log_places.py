"""Where the decision log goes: standard output, files, unix sockets; and what happens when nothing can go there."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.decision_log import log as log_module
from extauthz.adapters.decision_log import sinks as sinks_module
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File, Sink, SinkClosed, StandardOutput, UnixSocket, chunks, whole_lines
from extauthz.config.loader import Configuration, load
from extauthz.core.model import Deny, Reason, Request
from extauthz.errors import ConfigurationError
from extauthz.runtime.decision_log import DecisionLogs, open_decision_log
from tests.support.project import ROOT, TESTS
from tests.support.waiting import eventually
from tests.support.world import DECISION_ID


def record(log: DecisionLog, *numbers: int) -> None:
    """Record decisions that are known again by their paths."""
    for number in numbers:
        asked = Request("GET", f"/{number}", "h", {}, raw=True, decision_id=DECISION_ID)
        log.record(asked, Deny(Reason.ROUTE_UNKNOWN), 0.0)


def numbers(text: bytes | str) -> list[int]:
    """Return the decisions that a text of whole lines holds."""
    return [int(json.loads(line)["path"][1:]) for line in text.splitlines()]


def until_written(log: DecisionLog, count: int) -> None:
    """Wait until so many lines are written in all."""
    eventually(lambda: log.written == count)


@pytest.fixture
def opened() -> Iterator[Callable[..., DecisionLog]]:
    """Open logs that are closed when the test ends."""
    logs: list[DecisionLog] = []

    def open_log(sink: Sink, *, capacity: int = 10_000, interval: float = 0.001) -> DecisionLog:
        logs.append(DecisionLog(sink, capacity=capacity, interval=interval))
        return logs[-1]

    yield open_log
    for log in logs:
        log.close()


Open = Callable[..., DecisionLog]


# --- standard output


class Pipe:
    """A pipe that nobody reads until a test does."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.text = b""

    def drain(self) -> threading.Thread:
        """Read everything in a thread of its own, until the other end is closed."""

        def read() -> None:
            while chunk := os.read(self.reading, 65536):
                self.text += chunk

        thread = threading.Thread(target=read)
        thread.start()
        return thread


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.reading, made.writing):
        with suppress(OSError):
            os.close(descriptor)


def test_a_reader_that_stalls_costs_lines_and_nothing_else(pipe: Pipe, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """All that was recorded is written or counted as dropped; the newest lines survive, and the fault is told once."""
    log = opened(StandardOutput(pipe.writing), capacity=100)
    recorded = itertools.count()

    def told() -> bool:
        record(log, *itertools.islice(recorded, 100))
        return bool(caplog.records)

    # Until the pipe is full, however often the thread got its turn meanwhile.
    eventually(told)
    record(log, *itertools.islice(recorded, 10_000))
    count = next(recorded)
    assert log.dropped > 0
    os.close(pipe.writing)
    reader = pipe.drain()
    eventually(lambda: len(caplog.records) > 1)
    log.close()
    reader.join(timeout=5)

    assert len(numbers(pipe.text)) == log.written == count - log.dropped
    assert numbers(pipe.text)[-100:] == [*range(count - 100, count)]
    assert [entry.getMessage() for entry in caplog.records] == ["decision log not written", "decision log written again"]
    assert caplog.records[0].__dict__["cause"] == "nobody reads"
    assert (caplog.records[1].__dict__["to"], caplog.records[1].__dict__["dropped"]) == ("stdout", log.dropped)


class Stalling:
    """A place whose reader stalls for so many attempts, each of which has waited for him already, or is broken for as many."""

    name = "a place"

    def __init__(self, fault: OSError, attempts: int) -> None:
        self._fault = fault
        self.left = attempts

    def write(self, lines: Sequence[bytes]) -> int:
        if self.left:
            self.left -= 1
            raise self._fault
        return len(lines)

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("fault", "shortest", "longest"),
    [
        (TimeoutError(errno.ETIMEDOUT, "nobody reads"), 0.0, 0.24),
        (BlockingIOError(errno.EAGAIN, "no room"), 0.0, 0.24),
        (OSError(errno.ENOSPC, "disk full"), 5.0, 5.2),
        (ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens"), 5.0, 5.2),
    ],
)
def test_a_reader_that_comes_back_is_served_at_once_and_a_broken_place_is_left_in_peace(
    fault: OSError, shortest: float, longest: float
) -> None:
    """The pauses are those that the log asks for, with the interval that it has in service."""
    asked: list[float] = []

    def pause(stop: threading.Event, seconds: float) -> bool:
        asked.append(seconds)
        return stop.wait(0.001)

    sink = Stalling(fault, attempts=20)
    log = DecisionLog(sink, wait=pause)
    record(log, 1)
    until_written(log, 1)
    pauses = asked[:]
    log.close()
    assert sink.left == 0
    assert shortest <= max(pauses) <= longest


def test_a_broken_place_is_tried_again_after_a_tenth_of_a_second_then_seldom_and_every_five_at_last() -> None:
    """Beside the twentieth of a second that always lies between two writes."""
    asked: list[float] = []

    def pause(stop: threading.Event, seconds: float) -> bool:
        asked.append(round(seconds, 3))
        return stop.wait(0.001)

    log = DecisionLog(Stalling(OSError(errno.ENOSPC, "disk full"), attempts=9), wait=pause)
    record(log, 1)
    until_written(log, 1)
    log.close()
    begin = asked.index(0.15)
    assert asked[begin : begin + 8] == [0.15, 0.25, 0.45, 0.85, 1.65, 3.25, 5.05, 5.05]


def test_the_wait_for_a_reader_ends_when_he_reads(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the patience is at an end, which is far away here."""
    sink = StandardOutput(pipe.writing)
    monkeypatch.setattr(sinks_module, "PATIENCE", 0.0)
    with suppress(TimeoutError):
        while True:
            sink.write([b"x" * 4095 + b"\n"])
    monkeypatch.setattr(sinks_module, "PATIENCE", 60.0)
    thread = threading.Thread(target=sink.write, args=([b"y\n"],), daemon=True)
    thread.start()
    os.read(pipe.reading, 65536)
    thread.join(timeout=20)
    assert not thread.is_alive()
    sink.close()


class Busy:
    """A place that counts the lines of each write, of which it takes `most`; the loop has made another one meanwhile."""

    name = "a place"

    def __init__(self, most: int) -> None:
        self.turns: list[list[int]] = [[]]
        self.meanwhile: Callable[[], object] = list
        self._most = most

    def write(self, lines: Sequence[bytes]) -> int:
        self.turns[-1].append(len(lines))
        self.meanwhile()
        return min(self._most, len(lines))

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("most", "turns"),
    [
        (5000, [[], [1024, 1024, 454], [1], [1]]),
        # A pipe is full before a thousand lines are written: what waited when the turn began is written in it all the same.
        (600, [[], [1024, 424, 1024, 424, 456], [1], [1]]),
    ],
)
def test_lines_that_come_up_while_others_are_written_wait_for_the_next_turn(most: int, turns: list[list[int]]) -> None:
    """To be taken one by one they would cost the loop the interpreter's lock each time."""
    sink, begun = Busy(most), threading.Event()

    def pause(stop: threading.Event, seconds: float) -> bool:
        begun.wait(20)
        sink.turns.append([])
        return len(sink.turns) > 4

    log = DecisionLog(sink, wait=pause)
    sink.meanwhile = lambda: record(log, 1)
    record(log, *range(2500))
    begun.set()
    log._thread.join(20)
    assert [turn[: len(wanted)] for turn, wanted in zip(sink.turns, turns, strict=False)] == turns


@pytest.mark.parametrize("compiled", [True, False])
def test_a_reader_is_waited_for_once_in_a_call_and_not_before_every_run(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """One that takes 4 KiB now and then would otherwise keep the thread from its end, and from a rotation, for minutes."""
    if not compiled:
        monkeypatch.setenv("EXTAUTHZ_PURE", "1")
    sink = StandardOutput(pipe.writing)
    lines = [f"{number:04093}\n".encode() for number in range(200)]
    monkeypatch.setattr(sinks_module, "PATIENCE", 0.3)
    text, ending = b"", threading.Event()

    def read_now_and_then() -> None:
        nonlocal text
        # Always sooner than the patience is at an end.
        while not ending.wait(0.1):
            text += os.read(pipe.reading, 4096)

    thread = threading.Thread(target=read_now_and_then)
    thread.start()
    taken = sink.write(lines)
    ending.set()
    thread.join(20)
    # The 16 that the pipe holds, and the three or four that were read meanwhile, not all 200.
    assert 16 <= taken < 40
    assert text + os.read(pipe.reading, 2**20) == b"".join(lines[:taken])
    sink.close()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_reader_that_reads_gets_all_lines_in_one_call(pipe: Pipe, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """More than the pipe holds: to come back for the interpreter's lock whenever it is full would hold up the loop."""
    if not compiled:
        monkeypatch.setenv("EXTAUTHZ_PURE", "1")
    monkeypatch.setattr(sinks_module, "PATIENCE", 60.0)
    sink = StandardOutput(pipe.writing)
    lines = [f"{number:04093}\n".encode() for number in range(200)]
    reader = pipe.drain()
    assert sink.write(lines) == 200
    sink.close()
    os.close(pipe.writing)
    reader.join(20)
    assert pipe.text == b"".join(lines)


def test_closing_does_not_wait_for_a_reader_that_stalls(pipe: Pipe, opened: Open) -> None:
    log = opened(StandardOutput(pipe.writing))
    record(log, *range(5000))
    started = time.monotonic()
    log.close()
    # A second, however busy the machine is, and less than ten.
    assert time.monotonic() - started < 8.0
    log._thread.join(timeout=5)
    assert not log._thread.is_alive()
    assert log.written > 0
    assert log.written + log.dropped == 5000


def test_a_reader_that_is_gone_is_not_waited_for(pipe: Pipe, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    os.close(pipe.reading)
    log = opened(StandardOutput(pipe.writing), capacity=50)
    record(log, *range(500))
    eventually(lambda: log.dropped == 500)
    record(log, *range(500))
    eventually(lambda: log.dropped == 1000)
    log.close()
    assert (log.written, log.dropped) == (0, 1000)
    assert [entry.getMessage() for entry in caplog.records] == ["decision log not written any more"]


def test_standard_output_is_left_open(pipe: Pipe, opened: Open) -> None:
    log = opened(StandardOutput(pipe.writing))
    record(log, 1)
    log.reopen()
    log.close()
    os.write(pipe.writing, b"ours\n")
    assert os.read(pipe.reading, 65536).endswith(b"}\nours\n")


def test_a_descriptor_that_is_not_open_is_refused(pipe: Pipe) -> None:
    os.close(pipe.writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        StandardOutput(pipe.writing)


# --- files


def test_lines_are_appended_to_a_file_of_mode_0640(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "decisions.jsonl"
    old = os.umask(0)
    try:
        log = opened(File(file))
    finally:
        os.umask(old)
    record(log, 1, 2)
    log.close()
    again = opened(File(file))
    record(again, 3)
    again.close()
    assert numbers(file.read_bytes()) == [1, 2, 3]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (log.written, again.written, log.dropped) == (2, 1, 0)


def test_a_rotation_loses_no_line(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "decisions.jsonl"
    log = opened(File(file))
    expected = 0
    for turn in range(5):
        record(log, *range(turn * 100, turn * 100 + 100))
        expected += 100
        until_written(log, expected)
        file.rename(tmp_path / f"decisions.{turn}")
        # Before the signal, lines go to the old file.
        record(log, 1000 + turn)
        expected += 1
        until_written(log, expected)
        log.reopen()
        eventually(file.exists)
    log.close()
    for turn in range(5):
        found = numbers((tmp_path / f"decisions.{turn}").read_bytes())
        assert found == [*range(turn * 100, turn * 100 + 100), 1000 + turn]
    assert file.read_bytes() == b""


def test_a_rotation_that_fails_leaves_the_old_file(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    folder, moved = tmp_path / "log", tmp_path / "moved"
    folder.mkdir()
    log = opened(File(folder / "d"))
    folder.rename(moved)
    log.reopen()
    eventually(lambda: caplog.records)
    record(log, 1)
    eventually(lambda: log.written == 1)
    assert numbers((moved / "d").read_bytes()) == [1]
    folder.mkdir()
    eventually((folder / "d").exists)
    record(log, 2)
    log.close()
    assert numbers((folder / "d").read_bytes()) == [2]
    assert [entry.getMessage() for entry in caplog.records] == ["decision log not opened again", "decision log written again"]
    assert caplog.records[0].__dict__["cause"] == os.strerror(errno.ENOENT)


def test_a_file_that_was_removed_is_made_again(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "d"
    log = opened(File(file))
    record(log, 1)
    eventually(lambda: log.written == 1)
    file.unlink()
    record(log, 2)
    log.close()
    assert numbers(file.read_bytes()) == [2]


def test_a_folder_that_vanished_costs_what_cannot_wait(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = opened(File(folder / "d"), capacity=10)
    (folder / "d").unlink()
    folder.rmdir()
    record(log, 0)
    eventually(lambda: caplog.records)
    record(log, *range(1, 101))
    assert log.dropped >= 90
    folder.mkdir()
    eventually(lambda: len(caplog.records) > 1)
    log.close()
    found = numbers((folder / "d").read_bytes())
    assert found[-10:] == [*range(91, 101)]
    assert len(found) + log.dropped == 101
    assert [entry.levelname for entry in caplog.records] == ["ERROR", "WARNING"]


class Counted(File):
    """A file that counts what is tried."""

    attempts = 0

    def write(self, lines: Sequence[bytes]) -> int:
        self.attempts += 1
        return super().write(lines)


def test_a_full_disk_is_told_once(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    disk = Counted(Path("/dev/full"))
    log = opened(disk)
    record(log, *range(10))
    eventually(lambda: disk.attempts >= 3)
    log.close()
    log._thread.join(timeout=5)
    assert [entry.__dict__["cause"] for entry in caplog.records] == [os.strerror(errno.ENOSPC)]
    assert (log.written, log.dropped) == (0, 10)


def test_a_fault_that_comes_and_goes_is_not_told_each_time(
    tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "FIRST_DELAY", 0.001)
    target = tmp_path / "target"
    link = tmp_path / "d"
    link.symlink_to(target)
    log = opened(File(link))
    for turn in range(5):
        target.unlink()
        link.unlink()
        link.symlink_to("/dev/full")
        record(log, turn)
        eventually(lambda: log._is_failing)
        link.unlink()
        link.symlink_to(target)
        log.reopen()
        until_written(log, turn + 1)
    log.close()
    assert [entry.getMessage() for entry in caplog.records] == ["decision log not written", "decision log written again"]


DISK_THAT_FILLS = """
import resource, sys
from pathlib import Path
from extauthz.adapters.decision_log.sinks import File
file = Path(sys.argv[1])
lines = [b"%d" % number * 30 + b"\\n" for number in range(4)]
sink = File(file)
resource.setrlimit(resource.RLIMIT_FSIZE, (75, resource.RLIM_INFINITY))
assert sink.write(lines) == 2
try:
    sink.write(lines[2:])
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sink.write(lines[2:]) == 2
    assert sink.write(lines[:1]) == 1
    print("done")
"""


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_the_next_ones_whole(tmp_path: Path) -> None:
    """The limit of the file size stands for the disk; a process of its own, because the limit is the whole process's."""
    file = tmp_path / "d"
    done = subprocess.run([sys.executable, "-c", DISK_THAT_FILLS, str(file)], capture_output=True, text=True, timeout=30)
    assert done.stdout == "done\n", done.stderr
    assert file.read_text().split("\n") == ["0" * 30, "1" * 30, "2" * 13, "2" * 30, "3" * 30, "0" * 30, ""]


SEVERAL_PROCESSES = """
import sys
from pathlib import Path
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File, StandardOutput
from extauthz.core.model import Deny, Reason, Request
sink = File(Path(sys.argv[1])) if len(sys.argv) > 2 else StandardOutput(1)
log = DecisionLog(sink, interval=0.0005)
for number in range(3000):
    log.record(Request("GET", "/" + sys.argv[-1] * (number % 500), "h", {}, raw=True, decision_id=f"{number:032x}"),
               Deny(Reason.ROUTE_UNKNOWN), 0.0)
log.close(20)
assert log.written == 3000 and not log.dropped
"""


@pytest.mark.parametrize("to", ["file", "pipe"])
def test_lines_of_several_processes_are_whole(to: str, tmp_path: Path, pipe: Pipe) -> None:
    file = tmp_path / "d"
    place = [str(file)] if to == "file" else []
    calls = [[sys.executable, "-c", SEVERAL_PROCESSES, *place, name] for name in "abc"]
    processes = [subprocess.Popen(call, stdout=pipe.writing) for call in calls]
    os.close(pipe.writing)
    reader = pipe.drain()
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    reader.join(timeout=5)
    lines = [json.loads(line) for line in (file.read_bytes() if to == "file" else pipe.text).splitlines()]
    assert len(lines) == 9000
    for name in "abc":
        own = [line for line in lines if line["path"][1:2] == name]
        assert [line["decision_id"] for line in own] == [f"{number:032x}" for number in range(3000) if number % 500]
        assert all(line["path"] == "/" + name * (int(line["decision_id"], 16) % 500) for line in own)


def test_a_named_pipe_may_lose_its_reader(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "fifo"
    os.mkfifo(file)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        File(file)
    reading = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    log = opened(File(file))
    record(log, 1)
    eventually(lambda: log.written == 1)
    assert numbers(os.read(reading, 4096)) == [1]
    os.close(reading)
    record(log, 2)
    # A reader that comes before the write has failed would only take over from the one that went.
    eventually(lambda: log._is_failing)
    with closing(os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb")) as again:
        eventually(lambda: log.written == 2)
        log.close()
        assert numbers(again.read()) == [2]


# --- unix sockets


class Collector:
    """Listens on a unix socket and keeps what each connection sends."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self.connections: list[socket.socket] = []
        self.texts: list[bytes] = []

    def accept(self) -> socket.socket:
        """Take the next connection without reading from it."""
        self._listening.settimeout(20)
        connection, _ = self._listening.accept()
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        """Die."""
        for connection in self.connections:
            connection.close()
        self._listening.close()


def read_lines(connection: socket.socket, count: int) -> list[int]:
    """Read until so many lines came."""
    connection.settimeout(20)
    text = b""
    while text.count(b"\n") < count:
        chunk = connection.recv(65536)
        assert chunk
        text += chunk
    return numbers(text)


def test_a_collector_may_come_late_and_go(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s"
    log = opened(UnixSocket(path))
    record(log, 1)
    eventually(lambda: caplog.records)
    with closing(Collector(path)) as collector:
        assert read_lines(collector.accept(), 1) == [1]
        record(log, 2, 3)
        assert read_lines(collector.connections[0], 2) == [2, 3]
    record(log, 4)
    eventually(lambda: log._lines)
    with closing(Collector(path)) as collector:
        assert read_lines(collector.accept(), 1) == [4]
        # A new place under the same name.
        log.reopen()
        eventually(lambda: not log._rotated.is_set())
        record(log, 5)
        assert read_lines(collector.accept(), 1) == [5]
        until_written(log, 5)
    assert (log.written, log.dropped) == (5, 0)
    assert caplog.records[0].__dict__["cause"] == os.strerror(errno.ENOENT)


def test_a_line_that_was_sent_in_part_is_sent_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    lines = [b"%06d" % number * 500 + b"\n" for number in range(2000)]
    sink = UnixSocket(path)
    with closing(Collector(path)) as collector:
        taken = sink.write(lines)
        assert 0 < taken < len(lines)
        first = collector.accept()
        with suppress(TimeoutError):
            while True:
                taken += sink.write(lines[taken:])
        # Reading on the same connection continues in the middle of the line.
        first.settimeout(1)
        text = first.recv(100_000)
        taken += sink.write(lines[taken:])
        with suppress(TimeoutError):
            while chunk := first.recv(1_000_000):
                text += chunk
        whole = text.split(b"\n")
        assert [line + b"\n" for line in whole[:-1]] == lines[: len(whole) - 1]
        assert len(whole) - 1 == taken
    with closing(Collector(path)) as collector:
        with suppress(OSError):
            sink.write(lines[taken:])
        taken_again = sink.write(lines[taken : taken + 5])
        assert collector.accept().recv(1_000_000) == b"".join(lines[taken : taken + taken_again])
    sink.close()
    sink.close()


def test_a_collector_that_stalls_costs_lines_and_nothing_else(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "s"
    with closing(Collector(path)) as collector:
        log = opened(UnixSocket(path), capacity=100)
        record(log, *range(20_000))
        connection = collector.accept()
        eventually(lambda: log.dropped)
        record(log, *range(20_000, 20_200))
        log.close()
        log._thread.join(timeout=5)
        connection.settimeout(5)
        text = b""
        while chunk := connection.recv(1_000_000):
            text += chunk
        assert text.count(b"\n") == log.written
        assert log.written + log.dropped == 20_200
        assert numbers(text[: text.rindex(b"\n") + 1]) == sorted(numbers(text[: text.rindex(b"\n") + 1]))


def test_a_path_that_no_socket_can_have_is_refused() -> None:
    for path in ("/" + "s" * 107, "/\0"):
        with pytest.raises(OSError, match="107 bytes"):
            UnixSocket(Path(path))
    UnixSocket(Path("/" + "s" * 106))


# --- runs of lines


LINES = st.lists(st.binary(min_size=0, max_size=20).map(lambda text: text.replace(b"\n", b" ") + b"\n"), max_size=20)


@given(lines=LINES, most=st.integers(1, 100))
def test_runs_are_as_long_as_may_be(lines: list[bytes], most: int) -> None:
    runs = list(chunks(lines, most))
    assert [line for run in runs for line in run] == lines
    for run, following in itertools.zip_longest(runs, runs[1:]):
        size = sum(map(len, run))
        if len(run) > 1:
            assert size <= most
        if following is not None:
            assert size + len(following[0]) > most


@given(lines=LINES, cut=st.integers(0, 500))
def test_whole_lines_are_counted(lines: list[bytes], cut: int) -> None:
    assert whole_lines(lines, cut) == b"".join(lines)[:cut].count(b"\n")


# --- faults of ours


class Faulty:
    """A place with a fault of its own, for a while."""

    name = "faulty"

    def __init__(self) -> None:
        self.faults = 3
        self.text = b""

    def write(self, lines: list[bytes]) -> int:
        """Fail three times."""
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError("a fault of ours")
        self.text += b"".join(lines)
        return len(lines)

    def reopen(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def test_a_fault_of_ours_ends_nothing(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    sink = Faulty()
    log = opened(sink)
    record(log, 1, 2)
    until_written(log, 2)
    log.close()
    assert numbers(sink.text) == [1, 2]
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR, logging.WARNING]
    assert caplog.records[0].exc_info


def test_gone_is_for_standard_output_alone(pipe: Pipe) -> None:
    os.close(pipe.reading)
    sink = StandardOutput(pipe.writing)
    with pytest.raises(SinkClosed):
        sink.write([b"{}\n"])
    sink.close()


# --- from the configuration


def configuration(folder: Path, section: object) -> Configuration:
    """Load a configuration with this section."""
    shutil.copytree(TESTS / "config" / "base", folder, dirs_exist_ok=True)
    file = folder / "extauthz.yaml"
    file.write_text(file.read_text() + f"\ndecision_log: {json.dumps(section)}\n")
    return load(file)


def test_a_log_is_opened_as_configured(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    section = {"to": {"file": "log/d"}, "fields": ["reason", "sample", "path"], "sample": {"route_unknown": 0.5}, "capacity": 7}
    log = open_decision_log(configuration(tmp_path, section))
    assert log is not None
    for first in "7f8":
        asked = Request("GET", "/a?b", "h", {}, raw=True, decision_id=first + DECISION_ID[1:])
        log.record(asked, Deny(Reason.ROUTE_UNKNOWN), 0.0)
    assert log._capacity == 7
    log.close()
    assert json.loads((tmp_path / "log" / "d").read_text()) == {"reason": "route_unknown", "path": "/a", "sample": 0.5}


def test_a_socket_and_standard_output_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    with closing(Collector(tmp_path / "s")) as collector:
        log = open_decision_log(configuration(tmp_path / "a", {"to": {"socket": "../s"}}))
        assert log is not None
        record(log, 1)
        assert read_lines(collector.accept(), 1) == [1]
        log.close()
    with os.fdopen(os.dup(pipe.writing), "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        log = open_decision_log(configuration(tmp_path / "b", {}))
        assert log is not None
        record(log, 2)
        log.close()
    assert numbers(os.read(pipe.reading, 65536)) == [2]
    assert open_decision_log(configuration(tmp_path / "c", {"enabled": False})) is None


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"to": {"file": "none/d"}}, "decision_log.to.file: {folder}/none/d: No such file or directory"),
        ({"to": {"file": "."}}, "decision_log.to.file: {folder}: Is a directory"),
        ({"to": {"file": "a\0b"}}, "decision_log.to.file: {folder}/a\0b: embedded null byte"),
        ({"to": {"socket": "s" * 200}}, "decision_log.to.socket: {folder}/" + "s" * 200 + ": not a path of at most 107 bytes"),
        ({}, "decision_log.to: standard output is closed"),
    ],
    ids=["no folder", "a folder", "nul", "long", "closed"],
)
def test_a_place_that_cannot_be_opened_is_an_error_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: object, told: str
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    loaded = configuration(tmp_path, section)
    line = 1 + (loaded.file.read_text().partition("decision_log")[0].count("\n") if section else 0)
    with pytest.raises(ConfigurationError) as raised:
        open_decision_log(loaded)
    (problem,) = raised.value.problems
    where = told.format(folder=tmp_path)
    assert str(problem) == f"{loaded.file}:{problem.line}: {where}: name a place that this process may write to"
    if section:
        assert problem.line == line


def test_the_example_of_the_document_is_right(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "decision-log.md").read_text()
    (block,) = re.findall(r"```yaml\n(decision_log:.*?)```", text, re.DOTALL)
    section = configuration(tmp_path, yaml.safe_load(block)["decision_log"]).settings.decision_log
    assert section.to.file == "/var/log/extauthz/decisions.jsonl"


# --- another configuration


async def test_a_section_that_changed_gives_another_log_and_the_old_one_is_emptied(tmp_path: Path) -> None:
    logs = DecisionLogs(configuration(tmp_path, {"to": {"file": "a"}}))
    first = logs.current
    assert first is not None
    logs.prepare(configuration(tmp_path, {"to": {"file": "a"}, "enabled": True}))
    assert logs.commit() is None, "nothing changed"
    record(first, *range(100))
    logs.prepare(configuration(tmp_path, {"to": {"file": "b"}}))
    assert logs.current is first, "only prepared"
    closing = logs.commit()
    assert logs.current not in (first, None)
    assert closing is not None
    record(first, 100)
    await closing
    assert numbers((tmp_path / "a").read_bytes()) == [*range(101)]
    assert (logs.written, logs.dropped) == (101, 0)
    second = logs.current
    assert second is not None
    record(second, 101)
    logs.close()
    assert numbers((tmp_path / "b").read_bytes()) == [101]
    assert (logs.written, logs.dropped) == (102, 0)
    assert not first._thread.is_alive()
    assert not second._thread.is_alive()


async def test_a_log_is_switched_off_and_on(tmp_path: Path) -> None:
    logs = DecisionLogs(configuration(tmp_path, {"to": {"file": "a"}}))
    logs.prepare(configuration(tmp_path, {"enabled": False}))
    closing = logs.commit()
    assert closing is not None
    await closing
    assert logs.current is None
    logs.reopen()
    logs.prepare(configuration(tmp_path, {"to": {"file": "b"}}))
    assert logs.commit() is None
    assert logs.current is not None
    record(logs.current, 1)
    eventually(lambda: logs.written == 1)
    (tmp_path / "b").unlink()
    logs.reopen()
    eventually((tmp_path / "b").exists)
    record(logs.current, 2)
    logs.close()
    assert numbers((tmp_path / "b").read_bytes()) == [2]
    assert (tmp_path / "a").read_bytes() == b""


async def test_a_log_that_is_prepared_and_not_wanted_is_closed(tmp_path: Path) -> None:
    logs = DecisionLogs(configuration(tmp_path, {"to": {"file": "a"}}))
    first = logs.current
    with pytest.raises(ConfigurationError):
        logs.prepare(configuration(tmp_path, {"to": {"file": "none/b"}}))
    assert logs.commit() is None
    before = threading.enumerate()
    for _ in range(20):
        logs.prepare(configuration(tmp_path, {"to": {"file": "b"}}))
    logs.discard()
    eventually(lambda: [one.name for one in threading.enumerate() if one not in before] == [])
    assert logs.commit() is None
    assert logs.current is first
    logs.close()


def test_a_log_that_is_not_wanted_is_not_opened(tmp_path: Path) -> None:
    logs = DecisionLogs(configuration(tmp_path, {"to": {"file": "a"}}), enabled=False)
    logs.prepare(configuration(tmp_path, {"to": {"file": "b"}}))
    assert logs.commit() is None
    assert logs.current is None
    assert (logs.written, logs.dropped) == (0, 0)
    logs.close()
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
