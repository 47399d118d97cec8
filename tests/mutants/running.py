"""Runs mutants against tests: in forks of one process that collected the tests, each with the code of one function exchanged.

pytest is started once for a group of modules. A first fork runs all tests of the group without a mutant and notes which lines each
of them runs; then every mutant has a fork of its own, which runs the tests of its lines up to the first that fails. Where a line
runs at import the module has to be imported with the fault in it: those mutants have forks of a process that has not imported the
project, and take about a second each. A test may look at a constant and run no line of its module: where those that run one do not
notice such a fault, all the others are tried too.
"""

from __future__ import annotations

import fnmatch
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.mutations import Key, Mutant

PROCESSES = 2
SLOW_MARKS = ("cold_start", "envoy", "fleet", "pool")
SLOW_FIXTURES = frozenset({"postgresql"})
"""Tests of these marks and fixtures start processes: they are not among those that have to notice a mutant."""
FACTOR = 4
"""A mutant whose tests take so many times as long as without it is noticed."""
PATIENCE = 30.0
"""Seconds besides, in which a test may wait for a busy machine: what needs no processor is no evidence of a fault by itself."""
IMPORT_TIME = 30
"""Seconds of the processor besides, in which a process that has not imported the project may collect tests."""
EACH = 6
"""Tests that run the same lines are tried in two rounds: so many of them, and the others only for what these do not notice."""
ARGUMENTS = (
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faulthandler",
    "-p",
    "no:xdist",
    "--capture=no",
    "--tb=no",
    "--no-header",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)


class Outcome(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    """Killed too: the tests took more than several times as long as without it."""
    SURVIVED = "survived"
    NOT_COVERED = "not covered"
    """No test runs the line."""
    NOT_TRIED = "not tried"
    """The time was over."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant, and which test noticed it."""

    mutant: Mutant
    outcome: Outcome
    by: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Modules and the tests that are to notice faults in them, as patterns of node ids that are `left_out`."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class CleanRunFailed(Exception):
    """Tests fail without a mutant; says which."""


@dataclass
class Noted:
    """What the run without a mutant noted; tests are named by their number in the collection."""

    names: list[str]
    seconds: list[float]
    processor: list[float]
    """Seconds of the processor, which do not depend on what else runs on the machine."""
    lines: dict[str, dict[int, list[int]]]
    """For each module and line the tests that run it."""
    imported: dict[str, list[int]]
    """For each module the lines that run before any test."""
    libraries: list[str] = field(default_factory=list)
    alike: list[int] = field(default_factory=list)

    def of(self, mutant: Mutant) -> list[int]:
        """Return the tests that run a line of a mutant, or that use its module if it runs at import; all for a module of data."""
        lines = self.lines.get(mutant.key.module, {})
        if self.at_import(mutant):
            return sorted({test for tests in lines.values() for test in tests}) or list(range(len(self.names)))
        return sorted({test for line in range(mutant.first, mutant.last + 1) for test in lines.get(line, ())})

    def rounds(self, mutant: Mutant, recent: Collection[str] = ()) -> tuple[list[int], list[int]]:
        """Return the tests to try first, and those for what they do not notice.

        What is set at import any test may look at, and those do that noticed the `recent` ones of their kind.
        """
        every = self.of(mutant)
        first = self._first_of(every)
        if not self.at_import(mutant):
            return first, sorted(set(every).difference(first))
        likely = (test for test, name in enumerate(self.names) if name in recent)
        return sorted({*first, *likely}), sorted(set(range(len(self.names))).difference(first))

    def _first_of(self, chosen: Sequence[int]) -> list[int]:
        """Return EACH tests of those of a file that run the same lines: most of the others show nothing more."""
        counts: dict[tuple[str, int], int] = {}
        found = []
        for test in chosen:
            kind = (self.file(test), self._alike()[test])
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] <= EACH:
                found.append(test)
        return found

    def file(self, test: int) -> str:
        """Return the file of a test."""
        return self.names[test].partition("::")[0]

    def _alike(self) -> list[int]:
        if not self.alike:
            lines: list[list[tuple[str, int]]] = [[] for _ in self.names]
            for module, found in self.lines.items():
                for line, tests in found.items():
                    for test in tests:
                        lines[test].append((module, line))
            self.alike = [hash(tuple(sorted(one))) for one in lines]
        return self.alike

    def at_import(self, mutant: Mutant) -> bool:
        """Tell whether what a mutant changes runs before any test."""
        if not mutant.within_function:
            return True
        imported = set(self.imported.get(mutant.key.module, ()))
        return not imported.isdisjoint(range(mutant.first, mutant.last + 1))


def run(
    group: Group, mutants: Sequence[Mutant], *, root: Path, deadline: float, accepted: Collection[Key] = ()
) -> Iterator[Result]:
    """Yield what becomes of each mutant, in no order; those that are left at the deadline (monotonic) are not tried.

    Of those that are `accepted` only EACH tests are tried of those that run the same lines.
    Raises CleanRunFailed if a test fails without a mutant.
    """
    if time.monotonic() > deadline:
        # Collecting the tests alone takes seconds, for each group.
        yield from (Result(mutant, Outcome.NOT_TRIED) for mutant in mutants)
        return
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        pid = _fork(lambda: _serve(group, mutants, root, deadline, folder, accepted), folder / "output")
        os.waitpid(pid, 0)
        if not (folder / "results").exists():
            raise CleanRunFailed((folder / "output").read_text(errors="replace")[-4000:])
        left = dict(enumerate(mutants))
        for line in (folder / "results").read_text().splitlines():
            number, outcome, by = json.loads(line)
            yield Result(left.pop(number), Outcome(outcome), by)
        noted = Noted(**json.loads((folder / "tests").read_text(), object_hook=_numbers))
        for library in noted.libraries:
            _import_library(library)
        fresh = _pool(list(left), lambda number: _Fresh(left[number], group, noted, root), deadline, folder, accepted=accepted)
        for number, outcome, by in fresh:
            yield Result(left[number], outcome, by)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _numbers(found: dict[str, Any]) -> dict[Any, Any]:
    return {int(key) if key.isdigit() else key: value for key, value in found.items()}


def _serve(group: Group, mutants: Sequence[Mutant], root: Path, deadline: float, folder: Path, accepted: Collection[Key]) -> None:
    """Collect the tests of a group and try all mutants that need no import of their own."""
    plugin = _Server(group, mutants, root, deadline, folder, accepted=accepted)
    _pytest(group, root, plugin)


def _pytest(group: Group, root: Path, plugin: object) -> int:
    os.chdir(root)
    sys.path.insert(0, str(root))
    deselected = [argument for pattern in group.left_out if "*" not in pattern for argument in ("--deselect", pattern)]
    return int(pytest.main([*ARGUMENTS, *deselected, *group.tests], plugins=[plugin, _Deterministic()]))


class _Deterministic:
    """A plugin that lets properties try the same examples on every run, and not look for smaller ones once they fail."""

    def pytest_configure(self) -> None:
        phases = (Phase.explicit, Phase.generate)
        # How soon examples are drawn says what else the machine does.
        slow = [HealthCheck.too_slow]
        settings.register_profile(
            "mutants", derandomize=True, database=None, deadline=None, phases=phases, suppress_health_check=slow
        )
        settings.load_profile("mutants")


class _Server:
    """The plugin that tries mutants instead of running the tests once."""

    def __init__(
        self, group: Group, mutants: Sequence[Mutant], root: Path, deadline: float, folder: Path, *, accepted: Collection[Key]
    ) -> None:
        self._group = group
        self._accepted = accepted
        self._mutants = mutants
        self._root = root
        self._deadline = deadline
        self._folder = folder
        self._at_import = _coverage(root, group)
        self._at_import.start()
        self._libraries: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out tests that are slow by their marks or their fixtures, and others by their patterns."""
        items[:] = [item for item in items if not _is_left_out(item, self._group.left_out)]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests in a fork, then the mutants in forks of their own."""
        self._at_import.stop()
        files = [str(self._root / module) for module in self._group.modules]
        data = self._at_import.get_data()
        imported = {name: sorted(data.lines(file) or ()) for name, file in zip(self._group.modules, files, strict=True)}
        clean = self._folder / "clean"
        clean.mkdir()
        pid = _fork(lambda: _run_clean(session, self._group, self._root, clean), clean / "output")
        if not _ends(pid, self._deadline):
            # No time for a single mutant.
            (self._folder / "tests").write_text(
                json.dumps({"names": [], "seconds": [], "processor": [], "lines": {}, "imported": {}})
            )
            untried = [json.dumps((number, Outcome.NOT_TRIED, "")) for number in range(len(self._mutants))]
            (self._folder / "results").write_text("\n".join(untried))
            return True
        noted = json.loads((clean / "noted").read_text())
        if noted["failed"]:
            print("These tests fail without a mutant:", *noted["failed"], sep="\n")
            print((clean / "output").read_text(errors="replace")[-3000:])
            return True
        del noted["failed"]
        tests = Noted(**json.loads(json.dumps(noted), object_hook=_numbers), imported=imported)
        tests.libraries = _libraries_loaded()
        (self._folder / "tests").write_text(json.dumps(vars(tests)))
        at_once = [number for number, mutant in enumerate(self._mutants) if not tests.at_import(mutant)]
        codes = {module: _functions(str(self._root / module)) for module in self._group.modules}
        gc.freeze()

        def make(number: int) -> _Exchanged:
            mutant = self._mutants[number]
            return _Exchanged(mutant, tests, session, codes[mutant.key.module], self._root)

        with (self._folder / "results").open("w") as results:
            for result in _pool(at_once, make, self._deadline, self._folder, accepted=self._accepted):
                results.write(json.dumps(result) + "\n")
                results.flush()
        return True


def _is_left_out(item: pytest.Item, patterns: Sequence[str]) -> bool:
    is_slow = any(item.get_closest_marker(mark) for mark in SLOW_MARKS) or not SLOW_FIXTURES.isdisjoint(
        getattr(item, "fixturenames", ())
    )
    return is_slow or any(fnmatch.fnmatch(item.nodeid, pattern) for pattern in patterns)


def _libraries_loaded() -> list[str]:
    ours = ("extauthz", "tests", "benchmarks", "docs", "conftest", "__main__", "_pytest", "pytest", "coverage")
    return [name for name in sys.modules if not name.startswith(ours)]


def _import_library(name: str) -> None:
    if name in sys.modules:
        return
    with suppress(Exception):  # a fork that needs it imports it again, and fails there
        importlib.import_module(name)


def _coverage(root: Path, group: Group) -> Coverage:
    return Coverage(data_file=None, config_file=False, include=[str(root / module) for module in group.modules])


def _run_clean(session: pytest.Session, group: Group, root: Path, folder: Path) -> None:
    coverage = _coverage(root, group)
    seconds, processor, failed = [], [], []
    _own_temporary_folder(folder)
    coverage.start()
    for number, item in enumerate(session.items):
        coverage.switch_context(str(number))
        started, busy = time.perf_counter(), time.process_time()
        if not _passes(session, [item], number + 1):
            failed.append(item.nodeid)
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - busy)
    coverage.stop()
    data = coverage.get_data()
    lines = {}
    for module in group.modules:
        contexts = data.contexts_by_lineno(str(root / module))
        lines[module] = {line: sorted(int(name) for name in names if name) for line, names in contexts.items()}
    names = [item.nodeid for item in session.items]
    (folder / "noted").write_text(
        json.dumps({"names": names, "seconds": seconds, "processor": processor, "lines": lines, "failed": failed})
    )


def _passes(
    session: pytest.Session, items: Sequence[pytest.Item], following: int | None = None, *, seconds: Sequence[float] = ()
) -> bool:
    """Run tests up to the first that fails, and return False for it; its name is kept by the plugin.

    `seconds` are those that each took before: one that waits for ever ends the process after several times as many.
    """
    recorder = session.config.pluginmanager.get_plugin("mutants-first-failure")
    if recorder is None:
        recorder = _FirstFailure()
        session.config.pluginmanager.register(recorder, "mutants-first-failure")
    for index, item in enumerate(items):
        after: pytest.Item | None = items[index + 1] if index + 1 < len(items) else None
        if after is None and following is not None and following < len(session.items):
            after = session.items[following]
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE + 2 * FACTOR * seconds[index])
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if recorder.failed:
            recorder.last, recorder.failed = recorder.failed, ""
            return False
    return True


def _noticed_by(session: pytest.Session) -> str:
    """Return the test that failed last."""
    recorder = session.config.pluginmanager.get_plugin("mutants-first-failure")
    assert isinstance(recorder, _FirstFailure)
    return recorder.last


class _FirstFailure:
    def __init__(self) -> None:
        self.failed = ""
        self.last = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


@dataclass(frozen=True, slots=True)
class _Exchanged:
    """A mutant for a fork of the process that has the tests: the code of its function is exchanged."""

    mutant: Mutant
    tests: Noted
    session: pytest.Session
    functions: Mapping[str, list[FunctionType]]
    root: Path

    def run(self, order: Sequence[int]) -> str:
        """Run the tests, and return the name of the one that fails, or an empty text."""
        self._exchange()
        seconds = [self.tests.seconds[test] for test in order]
        if _passes(self.session, [self.session.items[test] for test in order], seconds=seconds):
            return ""
        return _noticed_by(self.session)

    def _exchange(self) -> None:
        path = str(self.root / self.mutant.key.module)
        mutated = _codes(compile(self.mutant.text, path, "exec", dont_inherit=True))
        for name, functions in self.functions.items():
            for function in functions:
                codes = mutated[name]
                position = _position(function)
                code = codes[min(position, len(codes) - 1)]
                if code.co_freevars == function.__code__.co_freevars:
                    function.__code__ = code


_positions: dict[int, int] = {}


def _position(function: FunctionType) -> int:
    return _positions.get(id(function), 0)


def _codes(module: CodeType) -> dict[str, list[CodeType]]:
    """Return the code of every function of a module and of its classes, by qualified name, in the order of the source."""
    found: dict[str, list[CodeType]] = {}

    def walk(code: CodeType) -> None:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                is_class = not constant.co_flags & 0x2  # CO_NEWLOCALS: functions have it, bodies of classes do not
                if is_class:
                    walk(constant)
                else:
                    found.setdefault(constant.co_qualname, []).append(constant)

    walk(module)
    return found


def _functions(path: str) -> dict[str, list[FunctionType]]:
    """Return the functions of a module that are alive, by qualified name: also those that a decorator or a property holds."""
    text = Path(path).read_text(encoding="utf-8")
    original = _codes(compile(text, path, "exec", dont_inherit=True))
    found: dict[str, list[FunctionType]] = {}
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == path:
            codes = original.get(function.__code__.co_qualname, [])
            for position, code in enumerate(codes):
                if code.co_firstlineno == function.__code__.co_firstlineno:
                    _positions[id(function)] = position
                    found.setdefault(code.co_qualname, []).append(function)
    return found


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A mutant for a fork of a process that has not imported the project: its module is imported with the fault."""

    mutant: Mutant
    group: Group
    tests: Noted
    root: Path

    def run(self, order: Sequence[int]) -> str:
        """Collect and run the tests file by file, most faults are noticed in the first; a failed import is, too."""
        sys.meta_path.insert(0, _Finder(self.mutant, self.root))
        files: dict[str, list[int]] = {}
        for test in order:
            files.setdefault(self.tests.file(test), []).append(test)
        for file, chosen in files.items():
            plugin = _Chosen([self.tests.names[test] for test in chosen], [self.tests.seconds[test] for test in chosen])
            _pytest(Group(self.group.name, self.group.modules, (file,), self.group.left_out), self.root, plugin)
            if plugin.failed or not plugin.has_run:
                return plugin.failed or "collection"
        return ""


class _Chosen:
    def __init__(self, names: Sequence[str], seconds: Sequence[float]) -> None:
        self._names = names
        self._seconds = seconds
        self.failed = ""
        self.has_run = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        found = {item.nodeid: item for item in session.items}
        self.has_run = not session.testsfailed
        if not all(name in found for name in self._names):
            # What the module holds decides which cases there are: another number of them is noticed.
            self.failed = "collection"
        elif not _passes(session, [found[name] for name in self._names], seconds=self._seconds):
            self.failed = _noticed_by(session)
        return True


class _Finder:
    """Finds the module of a mutant with the fault in it."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self._path = root / mutant.key.module
        self._name = mutant.key.module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._text = mutant.text

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=_Loader(name, str(self._path), self._text))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)


def _pool(
    numbers: Sequence[int], make: Callable[[int], _Exchanged | _Fresh], deadline: float, folder: Path, *, accepted: Collection[Key]
) -> Iterator[tuple[int, Outcome, str]]:
    """Try mutants, PROCESSES at a time; tests that noticed the last ones come first."""
    waiting = deque(numbers)
    running: dict[int, tuple[int, float, Path]] = {}
    recent: deque[str] = deque(maxlen=12)
    second: set[int] = set()
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            number = waiting.popleft()
            trial = make(number)
            chosen = trial.tests.rounds(trial.mutant, recent)[number in second]
            if number in second and not chosen:
                yield number, Outcome.SURVIVED, ""
                continue
            if not chosen or time.monotonic() > deadline:
                yield number, Outcome.NOT_TRIED if chosen else Outcome.NOT_COVERED, ""
                continue
            place = folder / f"mutant-{number}"
            place.mkdir(exist_ok=True)
            limit = FACTOR * sum(trial.tests.processor[test] for test in chosen) + (IMPORT_TIME if isinstance(trial, _Fresh) else 1)
            patience = FACTOR * (limit + sum(trial.tests.seconds[test] for test in chosen)) + PATIENCE
            order = _order(chosen, trial.tests, recent)
            pid = _fork(partial(_try, trial, order, place, limit), place / "output")
            running[pid] = (number, time.monotonic() + patience, place)
            if trial.mutant.key in accepted:
                second.add(number)
        if not running:
            continue
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            for late in [one for one, (_, until, _) in running.items() if time.monotonic() > min(until, deadline + 20)]:
                _kill(late)
            time.sleep(0.002)  # why: forks end on their own; waitpid knows no time-out
            continue
        if pid not in running:
            continue
        number, until, place = running.pop(pid)
        by = (place / "by").read_text() if (place / "by").exists() else None
        if by is None:
            over = time.monotonic() > deadline and time.monotonic() < until
            outcome = Outcome.NOT_TRIED if over else Outcome.TIMEOUT
            yield number, outcome, f"ended with status {os.waitstatus_to_exitcode(status)}"
        elif by:
            if by in recent:
                recent.remove(by)
            recent.appendleft(by)
            yield number, Outcome.KILLED, by
        elif number in second:
            yield number, Outcome.SURVIVED, ""
        else:
            second.add(number)
            waiting.append(number)
        shutil.rmtree(place, ignore_errors=True)


def _order(chosen: Sequence[int], tests: Noted, recent: Sequence[str]) -> list[int]:
    """Begin with tests that noticed the last mutants; then whole files, the quickest first, so that their fixtures are shared."""
    first = [test for name in recent for test in chosen if tests.names[test] == name]
    totals: dict[str, float] = {}
    for test in chosen:
        totals[tests.file(test)] = totals.get(tests.file(test), 0.0) + tests.seconds[test]
    others = sorted(set(chosen).difference(first), key=lambda test: (totals[tests.file(test)], test))
    return [*first, *others]


def _try(trial: _Exchanged | _Fresh, order: Sequence[int], place: Path, limit: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    _own_temporary_folder(place)
    by = trial.run(order)
    (place / "by").write_text(by)


def _own_temporary_folder(place: Path) -> None:
    temporary = place / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = str(temporary)


def _fork(work: Callable[[], None], output: Path) -> int:
    """Do some work in a process group of its own, whose output goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        with _output_to(output):
            work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may return into the copy of the parent
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _kill(pid: int) -> None:
    """End a process and those that it started; it may be too young to have a group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)


def _ends(pid: int, deadline: float) -> bool:
    """Wait for a process until the deadline; kill it and return False if it does not end."""
    while True:
        ended, _ = os.waitpid(pid, os.WNOHANG)
        if ended:
            return True
        if time.monotonic() > deadline:
            _kill(pid)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.05)  # why: waitpid knows no time-out
