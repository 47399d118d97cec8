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
    """The name of a check, what it found, and what to do about it; `where` tells two findings of one name apart."""

    name: str
    level: Level
    found: str
    advice: str = ""
    where: str = ""


def ok(name: str, found: str, *, where: str = "") -> Finding:
    """Return that something is as it should be."""
    return Finding(name, Level.OK, found, "", where)


def warning(name: str, found: str, advice: str, *, where: str = "") -> Finding:
    """Return that something is worth a look."""
    return Finding(name, Level.WARNING, found, advice, where)


def problem(name: str, found: str, advice: str, *, where: str = "") -> Finding:
    """Return that something is wrong."""
    return Finding(name, Level.PROBLEM, found, advice, where)
