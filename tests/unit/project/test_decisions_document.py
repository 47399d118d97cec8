"""docs/decisions.md names every decision, and what cites a decision by its name cites one that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from extauthz.core.model import ALLOWING, Reason
from tests.support import vectors
from tests.support.project import ROOT

PAGE = ROOT / "docs" / "decisions.md"
NAME = r"[A-Z]+(?:-[A-Z]+)*-[0-9]+"
FILES = sorted(file.stem for file in vectors.VECTORS.glob("*.yaml"))

# Sections that requests alone decide, so that a vector can show each of their decisions.
BY_VECTORS = ("REQUEST", "PATH", "ROUTE", "CREDENTIAL", "ACT-AS", "ORDER", "ANSWER", "HEADER", "MONITOR")
ELSEWHERE = {
    "ACT-AS-11": "",  # says what is not done
    "ANSWER-13": "test_answers",
    "ANSWER-15": "test_unanswered_envoy",
    "HEADER-4": "test_vectors",  # a law of every allow
    "HEADER-10": "test_vectors",  # a law of every allow
    "HEADER-12": "test_envoy_config",
    "HEADER-14": "test_internal_token",
    "MONITOR-5": "test_monitor",
}
"""Decisions of these sections that no vector cites, with the tests that try them."""


def decisions(page: str) -> list[tuple[str, str]]:
    """Return the names and the sentences of a page's decisions, in their order."""
    items = re.findall(rf"^- \*\*({NAME})\*\* (.*?)(?=^\S|^$|\Z)", page, re.MULTILINE | re.DOTALL)
    return [(name, " ".join(text.split())) for name, text in items]


@cache
def page_decisions() -> Mapping[str, str]:
    """Return the decisions of the page by their names."""
    return dict(decisions(PAGE.read_text("utf-8")))


def citations(rule: str) -> tuple[list[str], str]:
    """Return the names that a rule line begins with, and what it says itself."""
    cited, colon, text = rule.partition(": ")
    return (cited.split(", "), text) if colon and re.fullmatch(rf"{NAME}(?:, {NAME})*", cited) else ([], rule)


def unresolved(rule: str, page: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a rule line: no citation, one of nothing, or a reason that its decisions do not know."""
    cited, text = citations(rule)
    if not cited or not text:
        return [f"cites no decision: {rule}"]
    wrong = [f"{name} is not in the page" for name in cited if name not in page]
    known = " ".join(page.get(name, "") for name in cited)
    # A reason of one word is an ordinary word as well.
    reasons = [str(reason) for reason in Reason if "_" in reason and re.search(rf"\b{reason}\b", text)]
    return wrong + [f"{reason} is not in {cited}" for reason in reasons if f"`{reason}`" not in known]


def rules() -> list[tuple[str, str]]:
    """Return the rule lines of all vector files, each with the name of its group."""
    groups: list[tuple[str, dict[str, Any]]] = [(name, group) for name in FILES for group in vectors.load(name).get("groups", ())]
    return [(f"{name}/{group['group']}", group["rule"]) for name, group in groups]


def test_a_name_stands_for_one_decision() -> None:
    names = [name for name, _ in decisions(PAGE.read_text("utf-8"))]
    assert sorted(set(names)) == sorted(names)
    assert len(names) > 120
    assert [name for name, text in page_decisions().items() if not text.endswith(".")] == []


@pytest.mark.parametrize(("group", "rule"), rules(), ids=lambda part: part if "/" in part and " " not in part else "")
def test_every_rule_of_the_vectors_is_a_decision(group: str, rule: str) -> None:
    assert unresolved(rule, page_decisions()) == [], group


def test_wrong_citations_are_noticed() -> None:
    page = {"PATH-1": "400 `path_malformed`.", "ACT-AS-2": "Nobody."}
    assert unresolved("PATH-1, ACT-AS-2: 400 path_malformed: no slash.", page) == []
    assert unresolved("PATH-9: no slash.", page) == ["PATH-9 is not in the page"]
    assert unresolved("PATH-1: 400 path_ambiguous.", page) == ["path_ambiguous is not in ['PATH-1']"]
    assert unresolved("400 path_malformed: no slash.", page) == ["cites no decision: 400 path_malformed: no slash."]
    assert unresolved("PATH-1: ", page) == ["cites no decision: PATH-1: "]
    assert decisions("- **A-B-1** One\n  two.\n\n- other\n- **A-2** Three.\nFour") == [("A-B-1", "One two."), ("A-2", "Three.")]


@pytest.mark.parametrize("name", FILES)
def test_the_head_of_a_vector_file_names_headings_of_the_page(name: str) -> None:
    text = (vectors.VECTORS / f"{name}.yaml").read_text("utf-8")
    head = " ".join(line.lstrip("# ") for line in text.partition("\nworlds:")[0].splitlines())
    cited = re.search(r"docs/decisions\.md, ((?:\"[^\"]+\"(?: \([^)]*\))?(?:,| and)? ?)+)", head)
    assert cited, f"{name} does not say which part of the page it is about"
    headings = re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [title for title in re.findall(r'"([^"]+)"', cited[1]) if title not in headings] == []


def test_every_decision_about_a_request_has_cases() -> None:
    """A decision without a case is a wish: it has a vector, or a test of its own that is named here."""
    cited = {name for _, rule in rules() for name in citations(rule)[0]}
    without = {name for name in page_decisions() if name.rpartition("-")[0] in BY_VECTORS and name not in cited}
    assert without == ELSEWHERE.keys()
    stems = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    assert [stem for stem in ELSEWHERE.values() if stem and stem not in stems] == []


def test_every_reason_is_decided_with_its_status() -> None:
    statuses: dict[str, int] = {}
    for name, text in page_decisions().items():
        if name.startswith("REASON-"):
            for status, names in re.findall(r"\b(400|401|403|500|503)\b[^:]*: ((?:`\w+`(?:, )?)+)", text):
                statuses |= dict.fromkeys(re.findall(r"`(\w+)`", names), int(status))
    assert statuses == {str(reason): reason.status for reason in Reason if reason not in ALLOWING}


def test_reasons_that_are_told_under_another_name_are_listed_so() -> None:
    hidden = [str(reason) for reason in Reason if reason.public_name == "token_invalid"]
    assert re.findall(r"`(\w+)`", page_decisions()["REASON-3"])[1:] == hidden
