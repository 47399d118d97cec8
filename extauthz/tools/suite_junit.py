"""Results of test suites as JUnit XML, as CI systems read it: a `testsuite` for each file, a `testcase` for each case.

No standard defines the format. Written is what its readers have in common: tests/data/junit.xsd.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from extauthz.tools.suite_runs import Mismatch, Result
from extauthz.tools.suite_text import shown, shown_place


@dataclass(frozen=True, slots=True)
class FileResults:
    """What became of the cases of one file, and the seconds that they took."""

    file: str
    results: Sequence[Result]
    seconds: float


def junit_of(files: Iterable[FileResults], began: float) -> bytes:
    """Return the document; `began` is in seconds since the epoch. What may be a token is not in it."""
    files = list(files)
    root = ElementTree.Element("testsuites", {"name": "extauthz", **_counts([result for each in files for result in each.results])})
    root.set("time", _seconds(sum(each.seconds for each in files)))
    for each in files:
        file = _text(shown_place(each.file))
        suite = ElementTree.SubElement(root, "testsuite", {"name": file, **_counts(each.results), "skipped": "0"})
        suite.set("time", _seconds(each.seconds))
        suite.set("timestamp", datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        for result in each.results:
            case = result.case
            name = _text(f"{case.label} {shown(case.name)}")
            element = ElementTree.SubElement(suite, "testcase", name=name, classname=file, time="0.000")
            if result.error is not None:
                _add(element, "error", result, result.error)
            elif result.differences:
                _add(element, "failure", result, "; ".join(map(described, result.differences)))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def described(difference: Mismatch) -> str:
    """Write a difference on one line, without what may be a token."""
    return shown(f"{difference.field}: expected {worded(difference.expected)}, found {worded(difference.found)}")


def worded(value: object) -> str:
    """Write an expected or found value for people."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "{" + ", ".join(f"{name}: {worded(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(worded, value)) + "]"
        case str():
            return value if value and value.strip() == value else repr(value)
    return repr(value)


def _add(element: ElementTree.Element, kind: str, result: Result, message: str) -> None:
    child = ElementTree.SubElement(element, kind, type=kind, message=_text(shown(message)))
    lines = [shown_place(result.case.place), *(map(described, result.differences) if result.error is None else [shown(message)])]
    child.text = "\n".join(map(_text, lines))


def _counts(results: Sequence[Result]) -> dict[str, str]:
    errors = sum(result.error is not None for result in results)
    failures = sum(not result.passed for result in results) - errors
    return {"tests": str(len(results)), "failures": str(failures), "errors": str(errors)}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    """Write what XML 1.0 has no character for as Python does (production 2, Char)."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)
