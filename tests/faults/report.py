"""Writes docs/reliability.md from the table of faults and what was measured; run by `make faults` and `make reference`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.faults import results, trial
from tests.faults.table import Group, Kind, LeftOut, Limit, Phase, Row
from tests.support.project import ROOT

PAGE = ROOT / "docs" / "reliability.md"
OTHERS = "\n## Mutants"
"""Where the part of the page begins that others write."""
_HEAD = "<!-- The faults are written by `make faults` and `make reference` from tests/faults: change them there. -->\n\n"
_PHASES = {Phase.BEFORE_START: "before the start", Phase.IDLE: "idle", Phase.UNDER_LOAD: "under load"}
_KINDS = {
    Kind.KNOWN_TOKEN: "known token",
    Kind.NEW_TOKEN: "new token",
    Kind.KNOWN_OAUTH: "known OAuth",
    Kind.NEW_OAUTH: "new OAuth",
    Kind.PUBLIC: "public route",
}
_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_CONTROLS = {"round": "the slowest request before the fault", "start": "a start of the sidecar"}
_INTRODUCTION = """\
# Reliability

What clients see on the worst day, and what was seen when it was tried. Every fault is made by a test: a real Envoy, configured by
`extauthz envoy-config`, asks `extauthz serve` with its decision log and ops listener on; a real store and an issuer stand behind
it, and five kinds of requests come all the time.

| kind | what is asked |
|---|---|
| known token | an issued token that the sidecar has verified before the fault |
| new token | issued tokens, each of which comes for the first time |
| known OAuth | an access token that the sidecar has verified before the fault |
| new OAuth | access tokens, each of which comes for the first time |
| public route | a route that is open to everybody |

Beside them come requests that must be refused whatever happens: with a revoked token, with a forged access token, with none, and to
a route that does not exist. Each answer is decoded. An allow of one of those, or an allow for another user than the one who asked,
ends the test at once, in every row and at any moment. Every request claims in a header to come from the chief executive; none may
reach the upstream as such.

A cell is what must be answered while the fault is in force, and then how many answers were so. 200 is the answer of the upstream;
`envoy` in place of a reason is an answer of Envoy itself.

- **Noticed**: how long the sidecar answered as before, where it looks for the fault from time to time.
- **Recovery**: from the end of the fault to the end of the last request that was still answered wrong.
- **Slowest**: the longest that one of those waited whom the fault must not touch.
- What is shown of a trial is its last run: one that failed, or whose row was changed, may have been tried again after the others.
- A limit is the promised time and a multiple of a control of the same run, so that a busy machine changes both.
- "Before the start" means that the sidecar starts while the fault is in force, so that its memory is empty; "idle", that nobody
  asks anything when the fault comes; "under load", that all of them ask all the time.

`make faults` tries all of it in about half an hour, and `make test-long` one cell of each fault. A step of the wall clock is not
among them, as it cannot be made for one process alone: `tests/unit/verifiers/test_verifiers.py` moves a clock of its own. OAuth
settings that are kept in the store are not among them either: [oauth-providers.md](oauth-providers.md#settings-in-the-store) says
what holds while it is away, tampered with or restored, and `tests/integration/serve/test_saved_settings_served.py` tries it.
"""


def page(rows: tuple[Row, ...], measured: Mapping[str, Any], before: str = "") -> str:
    """Return the page; what others have written behind the faults stays."""
    _, heading, others = before.partition(OTHERS)
    return f"{_HEAD}{_INTRODUCTION}\n## Faults\n\n{_summary(rows, measured)}\n{''.join(_groups(rows, measured))}{heading}{others}"


def _trials(rows: tuple[Row, ...], measured: Mapping[str, Any]) -> Iterator[tuple[Row, Phase, str, Mapping[str, Any] | None]]:
    """Yield what is to be measured, with what was; None where that was another row."""
    for row in rows:
        for phase in row.phases:
            for database in row.databases:
                found = measured["trials"].get(f"{row.id}/{database}/{phase}")
                yield row, phase, database, found if found and found["row"] == results.digest(row) else None


def _summary(rows: tuple[Row, ...], measured: Mapping[str, Any]) -> str:
    trials = list(_trials(rows, measured))
    good = sum(1 for *_, found in trials if found and not found["errors"])
    text = f"{len(rows)} faults in {len(trials)} trials: {good} went as the table says. "
    text += f"Measured last: {measured['measured']}.\n" if measured["measured"] else "Nothing was measured yet.\n"
    bad = [(row, phase, database, found) for row, phase, database, found in trials if found is None or found["errors"]]
    if bad:
        text += "\nNot so, or not measured since the row was changed:\n\n"
    for row, phase, database, found in bad:
        why = "; ".join(_plain(error) for error in found["errors"]) if found else "not measured since"
        text += f"- [{_title(row)}](#{_anchor(row)}), {_PHASES[phase]}, {_DATABASES[database]}: {why}\n"
    return text


def _groups(rows: tuple[Row, ...], measured: Mapping[str, Any]) -> Iterator[str]:
    for group in Group:
        yield f"\n## {group.value}\n"
        for row in rows:
            if row.group is group:
                yield "".join(_row(row, measured))


def _row(row: Row, measured: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {_title(row)}\n\n{row.what}\n\n"
    says = [f"log `{row.log}`"] if row.log else []
    says += [f"metric `{row.metric}`"] if row.metric else []
    says += (
        [f"`/readyz` with {', '.join(f'{name}: {str(value).lower()}' for name, value in row.readyz.items())}"] if row.readyz else []
    )
    yield f"What tells of it: {'; '.join(says) or 'nothing of its own'}.\n\n"
    kinds = " | ".join(_KINDS.values())
    yield f"| when | store | {kinds} | noticed | recovery | slowest | told |\n|---|---|{'---|' * len(_KINDS)}---|---|---|---|\n"
    for _, phase, database, found in _trials((row,), measured):
        cells = [_cell(row.cells(phase)[kind], found and found["seen"].get(kind.value, {})) for kind in Kind]
        line = [_PHASES[phase], _DATABASES[database], *cells, *_times(row, found), _signs(found)]
        yield f"| {' | '.join(line)} |\n"
    left = {phase: why for phase, why in row.expect.items() if isinstance(why, LeftOut)}
    if left:
        yield "\n" + "".join(f"Not {_PHASES[phase]}: {why.left_out}\n" for phase, why in left.items())


def _cell(expected: frozenset[str], seen: Mapping[str, int] | None) -> str:
    text = " or ".join(map(_outcome, sorted(expected)))
    if seen is None:
        return f"{text}: not measured since"
    right, all_of_them = sum(count for outcome, count in seen.items() if outcome in expected), sum(seen.values())
    others = ", ".join(f"{_outcome(outcome)} {count}" for outcome, count in seen.items() if outcome not in expected)
    return f"{text}: {right} of {all_of_them}{f', **{others}**' if others else ''}"


def _outcome(outcome: str) -> str:
    status, _, reason = outcome.partition(" ")
    return f"{status} `{reason}`" if reason and status.isdigit() else outcome


def _limit(limit: Limit) -> str:
    return f"{limit.promised:g} s and {limit.factor:g} times {_CONTROLS[limit.control]}"


def _times(row: Row, found: Mapping[str, Any] | None) -> Iterator[str]:
    for name, limit, measured_limit in (
        ("noticed", row.noticed, "noticed_limit"),
        ("recovery", row.recovery, "limit"),
        ("slowest", row.slowest, "slowest_limit"),
    ):
        seconds = found and found[name]
        if found is None or seconds is None:
            yield f"at most {_limit(limit)}: not measured" if limit else ""
        else:
            yield f"{seconds:.2f} s" + (f", at most {found[measured_limit]:.2f} s ({_limit(limit)})" if limit else "")


def _signs(found: Mapping[str, Any] | None) -> str:
    if not found or not found["signs"]:
        return ""
    return ", ".join(f"{name}: {'seen' if was_seen else '**not seen**'}" for name, was_seen in found["signs"].items())


def _title(row: Row) -> str:
    return row.id.replace("_", " ").capitalize()


def _anchor(row: Row) -> str:
    return row.id.replace("_", "-")


def _plain(error: str) -> str:
    return " ".join(error.split())[:200].replace("|", "/").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(trial.rows(), results.load(), PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
