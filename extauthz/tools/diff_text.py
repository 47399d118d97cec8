"""Differences in words: for a terminal, for a pull request, for a program."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from extauthz.config.wording import counted
from extauthz.tools.diff_shape import CallerChange, DecisionSummary, Differences, Impact, RouteDifference, RoutePair, SettingRole

MAX_ROUTES = 5
"""Routes that are named of a difference that concerns many."""
MEANINGS = {
    Impact.WIDENED: "refused before, goes on now",
    Impact.NARROWED: "went on before, refused now",
    Impact.HEADERS: "goes on as before, with other headers for the upstream",
    Impact.REASON: "refused as before, for another reason",
}
_NOTHING = "No difference: every request is decided as before."


def as_data(differences: Differences) -> dict[str, Any]:
    """Return plain values for JSON."""
    return {"counts": _counts(differences)} | asdict(differences)


def as_text(differences: Differences) -> Iterator[str]:
    """Yield the lines for a terminal."""
    yield _summary(differences)
    for impact, several in groupby(differences.findings, key=lambda each: each.impact):
        yield from ("", f"{impact.upper()}: {MEANINGS[impact]}")
        for each in several:
            yield from (f"  {_title(each)}", *(f"    {line}" for line in _places(each)))
            for caller in each.callers:
                yield f"    {who(caller, is_one_of_many=len(each.routes) > 1)}: {_changed(caller)}"
                yield f"      {caller.curl}"
    for title, lines in (("NOT COMPARED", differences.incomplete), *_settings(differences)):
        if lines:
            yield from ("", title, *(f"  {line}" for line in lines))


def as_markdown(differences: Differences) -> Iterator[str]:
    """Yield the lines for a pull request; whatever files hold stands in code, so that it is shown as it is."""
    yield from ("## What this changes for requests", "", _summary(differences))
    for impact, several in groupby(differences.findings, key=lambda each: each.impact):
        yield from ("", f"### {impact.capitalize()}: {MEANINGS[impact]}")
        for each in several:
            yield from ("", f"#### {_code(_title(each))}", "")
            yield from (f"- {_code(line)}" for line in _places(each))
            yield from ("", "| who | before and now |", "|---|---|")
            yield from (
                f"| {_code(who(caller, is_one_of_many=len(each.routes) > 1))} | {_code(_changed(caller))} |"
                for caller in each.callers
            )
            yield from ("", "```sh", *(_for_reading(caller.curl) for caller in each.callers), "```")
    for title, lines in (("NOT COMPARED", differences.incomplete), *_settings(differences)):
        if lines:
            yield from ("", f"### {title.capitalize()}", "", *(f"- {_code(line)}" for line in lines))


def who(caller: CallerChange, *, is_one_of_many: bool = False) -> str:
    """Name a class of callers; `is_one_of_many`: of several routes, each with scopes of its own."""
    kind = "without a token" if caller.kind == "nobody" else caller.kind
    provider = f" of {caller.provider}" if caller.provider else ""
    match caller.scopes:
        case None:
            holding = ""
        case ():
            holding = " with whatever scopes"
        case names:
            holding = f" holding {'what the route asks for, like ' if is_one_of_many else ''}{' and '.join(names)}"
    return ", ".join((kind + provider + holding, *caller.details))


def _summary(differences: Differences) -> str:
    counts = _counts(differences)
    if not differences.findings:
        return _NOTHING if not differences.incomplete else "No difference in what was compared."
    total = counted(len(differences.findings), "difference")
    return f"{total}: " + ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def _counts(differences: Differences) -> dict[str, int]:
    counts = Counter(each.impact for each in differences.findings)
    return {impact.value: counts[impact] for impact in Impact}


def _title(each: RouteDifference) -> str:
    first = each.routes[0].new.name or each.routes[0].old.name or "requests that match no route"
    many = "" if len(each.routes) == 1 else f"{counted(len(each.routes), 'route')}, like "
    methods = ", ".join("any other method" if method == "*" else method for method in each.methods)
    hosts = "" if each.hosts == ("",) else f", host {', '.join(host or 'any other' for host in each.hosts)}"
    return f"{many}{first} ({methods}{hosts})"


def _places(each: RouteDifference) -> Iterator[str]:
    for pair in each.routes[:MAX_ROUTES]:
        yield _pair(pair)
    if len(each.routes) > MAX_ROUTES:
        yield f"and {counted(len(each.routes) - MAX_ROUTES, 'more route', 'more routes')}"


def _pair(pair: RoutePair) -> str:
    sides = [f"{side.place}: {side.name}" if side.place else side.name or "no route" for side in (pair.old, pair.new)]
    return sides[0] if sides[0] == sides[1] else " -> ".join(sides)


def _changed(caller: CallerChange) -> str:
    if caller.headers:
        same = caller.old == caller.new
        return ("" if same else f"{_decision(caller.old)} -> {_decision(caller.new)}, ") + f"other {', '.join(caller.headers)}"
    return f"{_decision(caller.old)} -> {_decision(caller.new)}"


def _decision(one: DecisionSummary) -> str:
    if one.decision == "would_deny":
        return f"forwarded in spite of {one.reason}"
    return one.reason if one.decision == "allow" else f"{one.status} {one.reason}"


def _settings(differences: Differences) -> Iterator[tuple[str, Iterable[str]]]:
    titles = {
        SettingRole.NOT_COMPUTED: "NOT COMPUTED HERE: these settings changed, and have a part in who is let through",
        SettingRole.COMPUTED: "SETTINGS: changed, and what that does is told above",
        SettingRole.NO_PART: "OTHER SETTINGS: changed, and decide no request",
    }
    for role, title in titles.items():
        yield title, [f"{each.key} ({each.old} -> {each.new})" for each in differences.settings if each.role is role]


def _code(text: str) -> str:
    """Write a text as code in Markdown, also within a table."""
    text = _for_reading(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def _for_reading(text: str) -> str:
    r"""Write as `\uNNNN` what ends a line, turns text around or is not seen: whoever shows the Markdown need not."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
