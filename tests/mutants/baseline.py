"""What is known of mutants that no test notices: the accepted ones with their reasons, and those that nobody has read yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.mutants.mutations import Key, Mutant
from tests.mutants.running import Outcome, Result

UNNOTICED = frozenset({Outcome.SURVIVED, Outcome.NOT_COVERED})


class BaselineError(Exception):
    """An entry cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Mutants that are not tried because what they change decides nothing: those whose line before the change fits `was`."""

    name: str
    was: re.Pattern[str]
    reason: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """`accepted` holds the reason for each mutant that may survive; `unread` are those that survived and nobody has read."""

    rules: tuple[Rule, ...] = ()
    accepted: Mapping[Key, str] = field(default_factory=dict)
    unread: frozenset[Key] = frozenset()

    def rule_for(self, key: Key) -> Rule | None:
        """Return the rule by which a mutant is not tried."""
        return next((rule for rule in self.rules if rule.was.search(key.was)), None)

    def complaints(self, mutants: Iterable[Mutant], results: Sequence[Result]) -> Iterator[str]:
        """Yield what makes a run fail: survivors that are not listed, and entries that no longer survive or no longer exist.

        `mutants` are all those of the modules of which some were tried.
        """
        known = {mutant.key for mutant in mutants}
        modules = {key.module for key in known}
        for result in results:
            key = result.mutant.key
            if result.outcome in UNNOTICED and key not in self.accepted and key not in self.unread:
                yield f"{result.outcome}, and neither accepted nor known:\n{key}"
            if result.outcome is Outcome.KILLED and key in self.accepted:
                yield f"accepted, but a test notices it now: remove it from accepted.yaml\n{key}\n  by {result.by}"
        for key in sorted(set(self.accepted) | self.unread, key=str):
            if key.module in modules and key not in known:
                yield f"listed, but there is no such mutant any more: remove it, or list the line as it is now\n{key}"


def load(folder: Path) -> Baseline:
    """Read accepted.yaml and unread.yaml; raises BaselineError for an entry without a reason or named twice."""
    document = yaml.safe_load((folder / "accepted.yaml").read_text(encoding="utf-8"))
    rules = tuple(Rule(one["name"], re.compile(one["was"]), _reason(one)) for one in document.get("rules") or ())
    accepted: dict[Key, str] = {}
    for entry in document.get("accepted") or ():
        for key in _keys(entry):
            if key in accepted:
                raise BaselineError(f"accepted.yaml names it twice:\n{key}")
            accepted[key] = _reason(entry)
    unread = yaml.safe_load((folder / "unread.yaml").read_text(encoding="utf-8")) or ()
    return Baseline(rules, accepted, frozenset(key for entry in unread for key in _keys(entry)) - set(accepted))


def write_unread(folder: Path, keys: Iterable[Key]) -> None:
    """Write the list of those that nobody has read."""
    entries: dict[tuple[str, str, str, int], list[str]] = {}
    for key in keys:
        entries.setdefault((key.module, key.function, key.was, key.nth), []).append(key.now)
    listed = [
        {"module": module, "function": function, "was": was, "now": now} | ({"nth": nth} if nth > 1 else {})
        for (module, function, was, nth), now in entries.items()
    ]
    head = (
        "# Mutants that survived and that nobody has read: each is either a test that is missing or an entry for accepted.yaml.\n"
        "# Written by `make mutants`, which takes away those that are noticed by now and adds none.\n"
    )
    (folder / "unread.yaml").write_text(head + yaml.safe_dump(listed, sort_keys=False, width=10_000, allow_unicode=True))


def _keys(entry: Mapping[str, Any]) -> Iterator[Key]:
    now = entry["now"]
    for one in [now] if isinstance(now, str) else now:
        yield Key(entry["module"], entry["function"], entry["was"], one, entry.get("nth", 1))


def _reason(entry: Mapping[str, Any]) -> str:
    reason = str(entry.get("reason") or "").strip()
    if len(reason) < 15:
        raise BaselineError(f"accepted.yaml has no reason for {entry}")
    return reason
