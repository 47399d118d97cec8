"""Faults of processes, their streams, their files and their sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.injector import injector
from tests.faults.installation import PATIENCE, SERVE, Installation, Needs, write
from tests.support.transports import eventually

RELOADED = 'extauthz_config_reloads_total{result="ok"}'
RELOADS = 200
WORKERS = Needs(unix=True, workers=2, settings=(("server.drain", "3s"),))
"""With time for Envoy to believe that a worker goes, and less than by default, so that the test is short."""
LONE = Needs(settings=(("server.drain", "60s"),))
"""With time for a successor to start, however busy the machine is."""


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def workers(it: Installation) -> list[int]:
    """Return the workers of a parent."""
    found = []
    for child in children(it.pid):
        with contextlib.suppress(OSError):
            if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                found.append(child)
    return found


def is_running(it: Installation) -> bool:
    """Tell whether there is a sidecar at the moment."""
    return it.sidecar.process is not None and it.sidecar.process.poll() is None


def chatter(it: Installation) -> None:
    """Make the sidecar say something on standard error: that it has reloaded."""
    before = it.metric(RELOADED)
    it.sidecar.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    eventually(lambda: it.metric(RELOADED) > before, seconds=PATIENCE, what=it.said)


# --- standard streams


@injector(Needs(piped=True), leaves_trace=True)
def nobody_reads_standard_error(it: Installation) -> Iterator[None]:
    """The pipe of standard error is full, and the sidecar has something to say."""
    yield from _stalled(it, standard_output=False)


@injector(Needs(piped=True), leaves_trace=True)
def nobody_reads_either_stream(it: Installation) -> Iterator[None]:
    """Both are full, as by `2>&1` into a pipe that stalls."""
    yield from _stalled(it, standard_output=True)


def _stalled(it: Installation, *, standard_output: bool) -> Iterator[None]:
    if is_running(it):
        pipes = it.pipes[0 if standard_output else 1 :]
        for pipe in pipes:
            pipe.stall()
        chatter(it)
        yield
        for pipe in pipes:
            pipe.go_on()
        return
    reading, writing = os.pipe()
    filling = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filling, b"\n")
    it.streams = {"stderr": writing} | ({"stdout": writing} if standard_output else {})
    try:
        yield
        it.streams = {}
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(reading, 65536):
                pass
    finally:
        it.streams = {}
        # The sidecar keeps its end until it is ended: without a reader it must go on as well.
        for descriptor in (reading, writing, filling):
            os.close(descriptor)


@injector(leaves_trace=True)
def input_and_output_are_closed(it: Installation) -> Iterator[None]:
    """The process begins without standard input and output."""
    it.prefix = ("sh", "-c", 'exec "$@" 0<&- 1>&-', "sh")
    yield
    it.prefix = ()


@injector(leaves_trace=True)
def all_streams_are_closed(it: Installation) -> Iterator[None]:
    """The process begins without any of the three."""
    it.prefix = ("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh")
    yield
    it.prefix = ()


@injector(Needs(piped=True), leaves_trace=True)
def decision_log_reader_stalls_and_comes_back(it: Installation) -> Iterator[None]:
    """Nobody reads the decision log for a while; once somebody does, lines come again."""
    it.pipes[0].stall()
    written = "extauthz_decision_log_written_total"

    def rests() -> bool:
        before = it.metric(written)
        time.sleep(0.3)  # why: what is not written any more has no event
        return it.metric(written) == before

    eventually(rests, seconds=PATIENCE)
    yield
    before = (it.folder / "stdout.log").stat().st_size
    it.pipes[0].go_on()

    def is_served() -> bool:
        text = (it.folder / "stdout.log").read_bytes()[before:]
        return b'"decision"' in text

    it.back = is_served


# --- signals and ends


@injector(leaves_trace=True)
def signals_during_the_imports(it: Installation) -> Iterator[None]:
    """SIGHUP and SIGUSR2 come again and again while the process starts."""
    with contextlib.ExitStack() as stack:
        program = (
            "import os, signal, sys, threading, time\n"
            "child = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])\n"
            "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, lambda got, _: os.kill(child, got))\n"
            "status = f'/proc/{child}/status'\n"
            "caught = lambda: int(next(line for line in open(status) if line.startswith('SigCgt')).split()[1], 16)\n"
            "while not caught() >> (signal.SIGHUP - 1) & 1: time.sleep(0.001)\n"
            "for _ in range(100):\n"
            "    for number in (signal.SIGHUP, signal.SIGUSR2): os.kill(child, number)\n"
            "    time.sleep(0.005)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        it.prefix = (sys.executable, "-c", program)
        stack.callback(setattr, it, "prefix", ())
        yield


@injector(WORKERS)
def a_worker_is_killed(it: Installation) -> Iterator[None]:
    """SIGKILL to one of two workers."""
    victim = min(workers(it))
    os.kill(victim, signal.SIGKILL)
    yield
    it.back = lambda: len(workers(it)) == 2 and victim not in workers(it) and it.readyz().get("ready") and it.healthy() == 2


@injector(WORKERS)
def a_worker_is_stopped(it: Installation) -> Iterator[None]:
    """SIGSTOP to one of two workers, which goes on afterwards or was replaced."""
    victim = min(workers(it))
    os.kill(victim, signal.SIGSTOP)
    yield
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGCONT)
    it.back = lambda: len(workers(it)) == 2 and it.readyz().get("ready") and it.healthy() == 2


@injector(WORKERS, leaves_trace=True)
def all_workers_are_replaced(it: Installation) -> Iterator[None]:
    """SIGUSR2: one after the other ends, and a new one takes its place."""
    before = set(workers(it))
    it.sidecar.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
    left = 1 if it.quick else 0
    eventually(lambda: len(workers(it)) == 2 and len(before & set(workers(it))) == left, seconds=PATIENCE, what=it.said)
    yield
    it.back = lambda: it.readyz().get("ready")


@injector(WORKERS, leaves_trace=True)
def the_parent_is_killed(it: Installation) -> Iterator[None]:
    """SIGKILL to the parent of two workers; later a new one is started and takes their addresses."""
    left = workers(it)
    parent = it.sidecar.process
    assert parent is not None
    parent.kill()
    parent.wait()
    yield
    it.launch()
    it.back = lambda: not any(map(_exists, left)) and len(workers(it)) == 2 and it.readyz().get("ready") and it.healthy() == 2


def _exists(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


@injector(LONE, leaves_trace=True)
def a_lone_sidecar_is_stopped_and_then_followed(it: Installation) -> Iterator[None]:
    """SIGTERM to a sidecar of one process; its successor is started while it drains."""
    old = it.sidecar.process
    assert old is not None
    old.terminate()
    yield
    new = it.launch()
    it.back = lambda: old.poll() is not None and new.poll() is None and it.readyz().get("ready")


@injector(LONE, leaves_trace=True)
def a_lone_sidecar_is_followed_and_then_stopped(it: Installation) -> Iterator[None]:
    """The successor waits for the addresses, and then the one that has them gets SIGTERM."""
    old = it.sidecar.process
    assert old is not None
    new = it.launch("--wait", "60s")
    yield
    old.terminate()
    it.back = lambda: old.poll() is not None and new.poll() is None and it.readyz().get("ready")


@injector()
def the_only_process_is_killed(it: Installation) -> Iterator[None]:
    """SIGKILL to a sidecar of one process; somebody starts it again."""
    process = it.sidecar.process
    assert process is not None
    process.kill()
    process.wait()
    yield
    it.launch()


@injector()
def the_only_process_is_stopped(it: Installation) -> Iterator[None]:
    """SIGSTOP to a sidecar of one process, which goes on afterwards."""
    os.kill(it.pid, signal.SIGSTOP)
    yield
    os.kill(it.pid, signal.SIGCONT)


@injector()
def envoy_is_restarted(it: Installation) -> Iterator[None]:
    """Envoy ends, and is started again."""
    it.stop_envoy()
    yield
    it.start_envoy()


# --- sockets and descriptors


@injector(Needs(unix=True))
def the_socket_is_removed(it: Installation) -> Iterator[None]:
    """Somebody removes the file of the unix socket."""
    (it.folder / "check.sock").unlink()
    yield
    it.back = (it.folder / "check.sock").is_socket


@injector()
def a_second_instance_on_the_same_address(it: Installation) -> Iterator[None]:
    """Another sidecar is started with the same configuration, and must not take the place of the first."""
    done = subprocess.run([*SERVE, str(it.sidecar.file)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    assert "is in use by another process" in done.stderr, done.stderr
    yield


@injector(leaves_trace=True)
def no_file_descriptor_is_left(it: Installation) -> Iterator[None]:
    """The process may open no file or connection beyond those that it has."""
    _, hard = resource.prlimit(it.pid, resource.RLIMIT_NOFILE)
    before = resource.prlimit(it.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(it.pid, resource.RLIMIT_NOFILE, (min(len(os.listdir(f"/proc/{it.pid}/fd")), hard), hard))
    yield
    resource.prlimit(it.pid, resource.RLIMIT_NOFILE, before)


@injector(leaves_trace=True)
def no_file_may_grow(it: Installation) -> Iterator[None]:
    """As on a full disk: neither the decision log, nor the process log, nor a SQLite file takes another byte."""
    before = resource.prlimit(it.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(it.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    yield
    resource.prlimit(it.pid, resource.RLIMIT_FSIZE, before)
    written = it.metric("extauthz_decision_log_written_total")
    it.back = lambda: it.metric("extauthz_decision_log_written_total") > written


# --- configuration


@injector()
def a_half_broken_configuration(it: Installation) -> Iterator[None]:
    """Routes with a line that is wrong beside one that opens a path; the files are mended later."""
    write(it, '  - {match: "GET /admin", public: true}\n  - {match: "GET /more", pubic: true}\n')
    it.sidecar.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    yield
    write(it)
    it.back = lambda: it.metric("extauthz_config_stale") == 0


@injector()
def many_reloads(it: Installation) -> Iterator[None]:
    """The routes change again and again, and each time the sidecar is told: 200 times in a row."""
    before, count = it.metric(RELOADED), 20 if it.quick else RELOADS
    for number in range(count):
        write(it, f'  - {{match: "GET /reloaded/{number}", scope: CHAT}}\n')
        it.sidecar.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        eventually(lambda number=number: it.metric(RELOADED) > before + number, seconds=PATIENCE, what=it.said)  # type: ignore[misc]
    yield
    write(it)
