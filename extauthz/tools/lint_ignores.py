"""Comments that silence a lint where it stands: `# extauthz: ignore name: reason`, on its line or on a line of its own above it."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from extauthz.config.lints import LASTING, Lint
from extauthz.config.wording import nearest
from extauthz.config.yaml_comments import BREAK, comments
from extauthz.errors import Problem

_FORM = "# extauthz: ignore name: reason"
_MARKER = re.compile(r"#[ \t]*extauthz:[ \t]*ignore\b(?P<rest>.*)")
_REST = re.compile(r"[ \t]+(?P<name>[A-Za-z0-9_-]+)[ \t]*(?::[ \t]*(?P<reason>.*\S)?)?[ \t]*").fullmatch
_NAMES = {lint.value: lint for lint in Lint if lint not in LASTING}


@dataclass(frozen=True, slots=True)
class Ignore:
    """A comment in line `line` of a file that silences a lint in line `target`, and why."""

    file: str
    line: int
    target: int
    lint: Lint
    reason: str


def read(file: str, data: bytes) -> tuple[list[Ignore], list[Problem]]:
    """Return the comments of a YAML file that silence something, and those that are wrong; `data` is YAML that can be read."""
    if b"extauthz:" not in data:
        return [], []
    text = data.decode("utf-8-sig")
    ends = [found.end() for found in BREAK.finditer(text)]
    targets = _targets(BREAK.split(text))
    ignores, problems = [], []
    for start, end in comments(text) if _MARKER.search(text) else ():
        comment = _MARKER.fullmatch(text, start, end)
        if comment is None:
            continue
        line = bisect_right(ends, start) + 1
        match _REST(comment["rest"]):
            case None:
                problems.append(Problem(file, line, "", f"this comment silences nothing: write {_FORM}"))
            case found if (lint := _NAMES.get(found["name"])) is None:
                problems.append(Problem(file, line, "", _unknown(found["name"])))
            case found if found["reason"] is None:
                message = f"ignores {lint} without a reason: write # extauthz: ignore {lint}: and why it is meant here"
                problems.append(Problem(file, line, "", message))
            case found:
                ignores.append(Ignore(file, line, targets[line - 1], lint, found["reason"]))
    return ignores, problems


def _unknown(name: str) -> str:
    if name in LASTING:
        return f"{name} cannot be ignored: mend what it tells of"
    return f"no lint is called {name!r}" + (nearest(name, _NAMES) or ": its name stands in brackets behind the warning")


def _targets(lines: list[str]) -> list[int]:
    """Return for each line the one that a comment in it is about: itself, or the next that holds more than a comment."""
    targets: list[int] = []
    for number in range(len(lines), 0, -1):
        is_comment = lines[number - 1].lstrip().startswith("#")
        targets.append(targets[-1] if is_comment and targets else number)
    return targets[::-1]
