"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a problem makes `extauthz doctor` fail, a warning is worth a look."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The name of a check, what it found, and what to do about it; `where` distinguishes two findings of one name."""

    name: str
    level: Level
    found: str
    advice: str = ""
    where: str = ""


def ok(name: str, text: str, *, where: str = "") -> Finding:
    """Return that something is as it should be."""
    return Finding(name, Level.OK, text, "", where)


def warning(name: str, text: str, advice: str, *, where: str = "") -> Finding:
    """Return that something is worth a look."""
    return Finding(name, Level.WARNING, text, advice, where)


def problem(name: str, text: str, advice: str, *, where: str = "") -> Finding:
    """Return that something is wrong."""
    return Finding(name, Level.PROBLEM, text, advice, where)
