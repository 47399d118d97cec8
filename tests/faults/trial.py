"""Tries one fault in one phase: what was seen of each kind of request, how long it took to end, and what told of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from tests.faults import issuer_faults, process_faults, store_faults
from tests.faults.injector import INJECTORS
from tests.faults.installation import PATIENCE, Installation
from tests.faults.load import Answer, Client, Load
from tests.faults.table import FAULTS, Database, Kind, Phase, Row, read

__all__ = ["issuer_faults", "process_faults", "store_faults"]
"""Importing them fills the register."""

GOOD = "200"
SIGNS_PATIENCE = 20.0
LOOK = 0.05
"""Seconds between two looks at the pages of the sidecar, which cost it time as well."""
STEADY = 3
"""So many good answers of each kind in a row are an end of the fault."""


@dataclass
class Trial:
    """What was seen of a fault in a phase; `errors` are what differs from the table."""

    row: Row
    database: Database
    phase: Phase
    seen: dict[Kind, Counter[str]] = field(default_factory=dict)
    recovery: float | None = None
    limit: float | None = None
    noticed: float | None = None
    noticed_limit: float | None = None
    slowest: float | None = None
    slowest_limit: float | None = None
    signs: dict[str, bool] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.row.id}/{self.database}/{self.phase}"


@cache
def rows() -> tuple[Row, ...]:
    """Read the table; raises TableError."""
    return read(FAULTS.read_text(encoding="utf-8"), injectors=INJECTORS)


def run(it: Installation, row: Row, phase: Phase, kinds: Iterable[Kind] = tuple(Kind), *, hold: float | None = None) -> Trial:
    """Try a fault; raises NeverAllowed, and AssertionError where nothing can be tried."""
    trial = Trial(row, it.database, phase)
    it.measured, it.back = None, None
    it.stock()
    load = it.load(*kinds)
    if phase is Phase.UNDER_LOAD:
        with load.running():
            load.wait(0.2 if it.quick else 1.0)
            found = load.since(0)
            assert {one.outcome for answers in found.values() for one in answers} == {GOOD}, "something is wrong before the fault"
            _tried(it, trial, load, _slowest(found), hold=hold)
        return trial
    before = it.load(*kinds)
    with before.running():
        before.wait(0)
        control = _slowest(before.since(0))
    if phase is Phase.BEFORE_START:
        it.stop()
    _tried(it, trial, load, control, hold=hold)
    return trial


def _tried(it: Installation, trial: Trial, load: Load, control: float, *, hold: float | None) -> None:
    row, phase, injector = trial.row, trial.phase, INJECTORS[trial.row.inject]
    offset = len(it.said())
    baseline = it.metric(_series(row.metric)) if row.metric and phase is not Phase.BEFORE_START else 0.0
    began = time.monotonic()
    with _loaded(load, already=phase is Phase.UNDER_LOAD) as asking:
        with injector.inject(it):
            if phase is Phase.BEFORE_START:
                process = it.launch()
                it.until_alive(process)
                _until_asked(it, row.cells(phase))
            in_force = time.monotonic()
            if phase is Phase.IDLE:
                time.sleep(hold or row.hold)  # why: the fault lasts for so long
            asking()
            load.wait(0.0 if phase is Phase.IDLE else hold or row.hold)
            noticed = _until_noticed(it, trial, load, in_force, control)
            trial.signs = _signs(it, trial, load, offset, baseline)
            window_end = time.monotonic()
        ended = time.monotonic()
        _recovered(it, trial, load, ended, control)
        load.wait(0.1 if it.quick else 0.5)
    load.check()
    compare(trial, load.since(began if phase is Phase.UNDER_LOAD else in_force), noticed, window_end)
    _compare_slowest(it, trial, load.since(in_force), window_end, control)
    trial.errors += [f"{name}: not seen" for name, was_seen in trial.signs.items() if not was_seen]


def compare(trial: Trial, found: Mapping[Kind, list[Answer]], noticed: float, end: float) -> None:
    """Compare answers with the table: those within the two moments with its cells, the others with them or what is good."""
    expected = trial.row.cells(trial.phase)
    for kind, answers in found.items():
        during = [one for one in answers if one.began >= noticed and one.ended <= end]
        trial.seen[kind] = Counter(one.outcome for one in during)
        if not during:
            trial.errors.append(f"{kind}: nothing was answered while the fault was in force")
        if wrong := set(trial.seen[kind]) - expected[kind]:
            trial.errors.append(f"{kind}: {_listed(wrong)} instead of {_listed(expected[kind])}")
        around = {one.outcome for one in answers} - expected[kind] - {GOOD}
        if around - wrong:
            trial.errors.append(f"{kind}: {_listed(around - wrong)} around the fault")


def _until_noticed(it: Installation, trial: Trial, load: Load, in_force: float, control: float) -> float:
    """Wait until the sidecar has noticed the fault, where that takes a while; return when that was."""
    if trial.row.noticed is None:
        return in_force
    expected = trial.row.cells(trial.phase)
    late = [kind for kind in load.sources if GOOD not in expected[kind]]

    def is_noticed() -> bool:
        found = load.since(in_force, late)
        return all(
            len(answers) >= STEADY and all(one.outcome in expected[kind] for one in answers[-STEADY:])
            for kind, answers in found.items()
        )

    limit = trial.noticed_limit = trial.row.noticed.seconds(round_=control, start=max(it.starts))
    load.until(is_noticed, seconds=limit + PATIENCE, what=lambda: f"{trial.name}: the fault is not noticed")
    noticed = max((one.began for answers in load.since(in_force, late).values() for one in answers if one.good), default=in_force)
    trial.noticed = noticed - in_force
    if trial.noticed > limit:
        trial.errors.append(f"noticed: after {trial.noticed:.2f} s, the limit is {limit:.2f} s")
    # The last good answer itself is before that moment.
    return noticed + 1e-6 if noticed > in_force else in_force


def _compare_slowest(it: Installation, trial: Trial, found: Mapping[Kind, list[Answer]], end: float, control: float) -> None:
    """Compare the longest time of those whom the fault must not touch with its limit."""
    cells = trial.row.cells(trial.phase)
    untouched = {kind: [one for one in answers if one.ended <= end] for kind, answers in found.items() if cells[kind] == {GOOD}}
    if not any(untouched.values()):
        return
    trial.slowest = _slowest(untouched)
    if trial.row.slowest is not None:
        trial.slowest_limit = trial.row.slowest.seconds(round_=control, start=max(it.starts))
        if trial.slowest > trial.slowest_limit:
            trial.errors.append(f"slowest: {trial.slowest:.2f} s, the limit is {trial.slowest_limit:.2f} s")


@contextmanager
def _loaded(load: Load, *, already: bool) -> Iterator[object]:
    """Give a function that begins to ask, unless somebody does."""
    if already:
        yield lambda: None
        return
    running = load.running()
    begun: list[object] = []

    def begin() -> None:
        begun.append(running.__enter__())

    try:
        yield begin
    finally:
        if begun:
            running.__exit__(None, None, None)


def _until_asked(it: Installation, expected: Mapping[Kind, frozenset[str]]) -> None:
    """Wait until Envoy has seen the new process, if something can show it."""
    good = [kind for kind, outcomes in expected.items() if outcomes == {GOOD}]
    if not good:
        return
    client, source = Client(it.envoy_port), it.sources()[good[-1]]
    deadline = time.monotonic() + PATIENCE
    while not client.ask(source()).good:
        assert time.monotonic() < deadline, f"Envoy gets no answers: {it.said()[-2000:]}"
        time.sleep(0.01)  # why: the pace of requests until Envoy has its answers
    client.close()


def _signs(it: Installation, trial: Trial, load: Load, offset: int, baseline: float) -> dict[str, bool]:
    """Wait for what log, metric and /readyz must say; return what was seen."""
    row = trial.row
    looks = {
        "log": lambda: f'"{row.log}' in it.said()[offset:],
        "metric": lambda: _holds(row.metric or "", it.metric(_series(row.metric or "")), baseline),
        "readyz": lambda: _told(it, row.readyz or {}),
    }
    waiting = {name for name, wanted in (("log", row.log), ("metric", row.metric), ("readyz", row.readyz)) if wanted}
    if it.quick:
        waiting &= row.in_suite.signs
    found = dict.fromkeys(sorted(waiting), False)
    deadline = time.monotonic() + SIGNS_PATIENCE
    while not all(found.values()) and time.monotonic() < deadline:
        found |= {name: bool(looks[name]()) for name, was_seen in found.items() if not was_seen}
        load.check()
        time.sleep(LOOK)  # why: the pace of looks at logs and pages of another process
    return found


def _series(condition: str) -> str:
    return re.split(r" (?:grows|[<>=])", condition)[0]


def _holds(condition: str, value: float, baseline: float) -> bool:
    operator, _, bound = condition.removeprefix(_series(condition)).strip().partition(" ")
    match operator:
        case "grows":
            return value > baseline
        case "==":
            return value == float(bound)
        case ">=":
            return value >= float(bound)
        case "<=":
            return value <= float(bound)
        case "<":
            return value < float(bound)
        case _:
            return value > float(bound)


def _told(it: Installation, wanted: Mapping[str, bool]) -> bool:
    said = it.readyz()
    return bool(said) and all(said.get(name) == value for name, value in wanted.items())


def _recovered(it: Installation, trial: Trial, load: Load, ended: float, control: float) -> None:
    """Wait until every kind is right again, and compare the time with its limit."""
    trial.limit = trial.row.recovery.seconds(round_=control, start=max(it.starts))

    def steady() -> bool:
        return all(len(answers) >= STEADY and all(one.good for one in answers[-STEADY:]) for answers in load.since(ended).values())

    is_back = it.back or (lambda: True)
    back_at: list[float] = []
    looked_at = [0.0]

    def over() -> bool:
        if not back_at and time.monotonic() - looked_at[0] > LOOK:
            if is_back():
                back_at.append(time.monotonic())
            looked_at[0] = time.monotonic()
        return bool(back_at) and steady()

    load.until(over, seconds=2 * trial.limit + PATIENCE, what=lambda: f"{trial.name}: the fault does not end: {it.said()[-1500:]}")
    bad = [one.ended for answers in load.since(0).values() for one in answers if not one.good and one.ended > ended]
    asked = [max(bad, default=ended) - ended]
    # Whoever looks for something else sees it only when he looks; a fault that left nothing behind is over at once.
    trial.recovery = it.measured if it.measured is not None else max(asked + ([back_at[0] - ended] if it.back else []))
    if trial.recovery > trial.limit:
        trial.errors.append(f"recovery: {trial.recovery:.2f} s, the limit is {trial.limit:.2f} s")


def _slowest(found: Mapping[Kind, list[Answer]]) -> float:
    return max(one.ended - one.began for answers in found.values() for one in answers)


def _listed(outcomes: Iterable[str]) -> str:
    return " or ".join(sorted(outcomes))
