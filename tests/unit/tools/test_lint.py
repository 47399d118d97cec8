"""Lints: what each says of its file in tests/config/lints, word by word, and how a comment silences it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.admin.route_map import routes_of
from extauthz.config.lints import LASTING, Lint
from extauthz.config.loader import Configuration, load
from extauthz.config.patterns import parse_match
from extauthz.core.paths import Path as RequestPath
from extauthz.core.policy import Policy
from extauthz.core.routes import STAR_METHODS, Route, compile_routes
from extauthz.core.upstream import STRICT, Upstream
from extauthz.tools.config_formats import named
from extauthz.tools.lint import LintFinding, LintLevel, lints
from extauthz.tools.lint_ignores import read
from extauthz.tools.lint_routes import never_matching
from tests.support.broken_files import expected, lay_out
from tests.support.project import ROOT, TESTS

BASE = TESTS / "config" / "lint_base"
LINTED = sorted((TESTS / "config" / "lints").iterdir())
IN_FILES = [lint for lint in Lint if lint not in {Lint.CERTIFICATE_DATES, Lint.NOT_REVIEWED}]
"""test_certificate_warnings.py has the one about certificates, test_route_review.py that of too many routes."""


def loaded(folder: Path) -> Configuration:
    """Load from inside the folder, so that the files are named as they are in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return load(Path("extauthz.yaml"))


def found(folder: Path) -> list[LintFinding]:
    return lints(loaded(folder))


def test_the_base_has_none(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    assert found(tmp_path) == []


@pytest.mark.parametrize("file", LINTED, ids=lambda file: file.stem)
def test_the_complete_list_of_findings(file: Path, tmp_path: Path) -> None:
    lay_out(file, tmp_path, BASE)
    assert [named(finding.problem) for finding in found(tmp_path)] == expected(file)


@pytest.mark.parametrize("lint", IN_FILES)
def test_every_lint_has_a_file_of_its_name(lint: Lint) -> None:
    assert [file for file in LINTED if file.stem == lint]
    assert any(f"[{lint}]" in text for file in LINTED if file.stem.startswith(lint) for text in expected(file))


def test_every_finding_has_a_name_that_there_is(tmp_path: Path) -> None:
    for number, file in enumerate(LINTED):
        lay_out(file, tmp_path / str(number), BASE)
        for finding in found(tmp_path / str(number)):
            assert (finding.problem.name in set(Lint)) is (finding.level is LintLevel.WARNING), finding


# Silencing


def with_comments(folder: Path, findings: list[LintFinding], *, above: bool) -> int:
    """Write a comment for each finding that can be silenced, on its line or above it; return their number."""
    wanted = {(each.problem.file, each.problem.line, each.problem.name) for each in findings if each.level is LintLevel.WARNING}
    wanted = {place for place in wanted if place[2] not in LASTING}
    # From the end, so that the lines of the others stay.
    for name, line, lint in sorted(wanted, reverse=True):
        comment = f"# extauthz: ignore {lint}: because of {lint}"
        lines = (folder / name).read_text(encoding="utf-8").split("\n")
        if above:
            lines.insert(line - 1, comment)
        else:
            lines[line - 1] += f"  {comment}"
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return sum(finding.problem.name in {place[2] for place in wanted} for finding in findings)


@pytest.mark.parametrize("above", [True, False], ids=["above", "on the line"])
@pytest.mark.parametrize("file", LINTED, ids=lambda file: file.stem)
def test_a_comment_with_a_reason_silences_what_stands_there(file: Path, tmp_path: Path, *, above: bool) -> None:
    lay_out(file, tmp_path, BASE)
    before = found(tmp_path)
    if file.stem in ("unused-ignore", "ignores-that-are-wrong"):
        before = []
    count = with_comments(tmp_path, before, above=above)
    after = found(tmp_path)
    if before:
        assert (count, {finding.level for finding in after}) == (len(before), {LintLevel.SILENCED})
        assert {finding.reason for finding in after} == {f"because of {finding.problem.name}" for finding in before}
        assert sorted(finding.problem.message.partition("(")[0] for finding in after) == sorted(
            finding.problem.message.partition("(")[0] for finding in before
        )


ROUTE = 'routes:\n  - {match: "POST /hook", public: true}'
HOOK = "# extauthz: ignore anonymous-write: the sender signs it"


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        (f"a: 1  {HOOK}\n", [1]),
        (f"{HOOK}\na: 1\n", [2]),
        (f"{HOOK}\n# another comment\n  {HOOK.replace('anonymous-write', 'open-read')}\na: 1\n", [4, 4]),
        # A line without anything is not what a comment is about, and what follows is not next to it.
        (f"{HOOK}\n\na: 1\n", [2]),
        (f"a: 1\n{HOOK}\n", [3]),
        (f"a: 1\n{HOOK}", [2]),
        (f"a: 1\r\n{HOOK}\r\nb: 2\r\n", [3]),
        (f"\ufeffa: 1\n{HOOK}\nb: 2\n", [3]),
        (f"a: ü\u2028b: 1  {HOOK}\n", [2]),
        (f"a: 'it''s # so'  {HOOK}\n", [1]),
        # Text is no comment, and neither is what stands in another comment.
        (f"a: 'b {HOOK}'\n", []),
        (f'a: "b {HOOK}"\n', []),
        (f"a: |\n  b\n  {HOOK}\n", []),
        (f"a: b#c  {HOOK}\n", [1]),
        (f"a: 1  # see {HOOK}\n", []),
        (f"# see {HOOK}\na: 1\n", []),
        ("a: 1  # extauthz is ignored here\n", []),
        ("a: 1  # extauthz: ignored here\n", []),
    ],
)
def test_which_line_a_comment_is_about(text: str, targets: list[int]) -> None:
    ignores, problems = read("routes.yaml", text.encode())
    assert ([ignore.target for ignore in ignores], problems) == (targets, [])
    assert {ignore.reason for ignore in ignores} <= {"the sender signs it"}


def test_a_comment_on_another_line_silences_nothing(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "routes.yaml").write_text(f'{HOOK}\nroutes:\n  - {{match: "POST /hook", public: true}}\n')
    assert [(finding.problem.name, finding.level) for finding in found(tmp_path) if finding.problem.file == "routes.yaml"] == [
        (Lint.UNUSED_IGNORE, LintLevel.WARNING),
        (Lint.ANONYMOUS_WRITE, LintLevel.WARNING),
    ]


def test_nothing_is_read_from_the_disk_again(tmp_path: Path) -> None:
    lay_out(next(file for file in LINTED if file.stem == "anonymous-write"), tmp_path, BASE)
    configuration = loaded(tmp_path)
    before = lints(configuration)
    for file in tmp_path.iterdir():
        file.unlink()
    assert before
    assert lints(configuration) == before


@pytest.mark.parametrize("name", ["extauthz.yaml", "several-providers.yaml", "openid-providers.yaml"])
def test_what_is_shipped_is_clean_or_says_why_not(name: str) -> None:
    findings = lints(load(ROOT / "config" / name))
    assert {finding.level for finding in findings} == {LintLevel.SILENCED}
    assert all(finding.reason and len(finding.reason.split()) >= 4 for finding in findings)


# A route that never matches


LENGTH = 4
SEGMENTS = st.sampled_from(["a", "b", "{x}"])
PATTERNS = st.builds(
    lambda segments, end: "/" + "/".join((*segments, *end)),
    st.lists(SEGMENTS, max_size=2),
    st.sampled_from([(), ("",), ("**",)]),
).filter(lambda pattern: "//" not in pattern)
METHODS = st.sampled_from(["GET", "POST", "*", "|".join(STAR_METHODS)])
UPSTREAMS = st.sampled_from([STRICT, Upstream(ignores_case=True), Upstream(ignores_slash=True)])


def every_path() -> Iterator[RequestPath]:
    """Yield every path over the literals of the patterns and one word more, as long as the patterns and somewhat longer."""
    for length in range(1, LENGTH + 1):
        for segments in product(("a", "b", "c"), repeat=length):
            yield RequestPath("/" + "/".join(segments))
            yield RequestPath("/" + "/".join((*segments[:-1], "")))


def policy_of(routes: list[Route], upstream: Upstream) -> Policy:
    """Return a policy of these routes, without those that clash with one before: two lines for one request are an error."""
    kept: dict[tuple[object, ...], Route] = {}
    for route in routes:
        keys = [(route.match.segments, route.match.rest, method) for method in route.match.methods]
        if kept.keys().isdisjoint(keys):
            kept |= dict.fromkeys(keys, route)
    return replace(load(BASE / "extauthz.yaml").policy, routes=compile_routes(kept.values(), upstream))


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.builds("{} {}".format, METHODS, PATTERNS), min_size=1, max_size=9), denied=st.booleans(), upstream=UPSTREAMS
)
def test_a_route_never_matches_when_no_request_leads_to_it(texts: list[str], upstream: Upstream, *, denied: bool) -> None:
    """Compared with every request there is over a small alphabet."""
    policy = policy_of([Route(text, parse_match(text).read_by(upstream), deny=denied) for text in texts], upstream)
    reached = set()
    for path in every_path():
        answers = [policy.routes.find(method, path) for method in (*STAR_METHODS, "PURGE")]
        reached |= {route.name for route in answers if isinstance(route, Route)}
    assert {route.name for route in never_matching(policy)} == {route.name for route in routes_of(policy.routes)} - reached


@pytest.mark.parametrize(
    ("lines", "never"),
    [
        (["GET /a", "GET /a/{id}/**", "GET /a/**"], ["GET /a/**"]),
        (["GET /a", "GET /a/{id}", "GET /a/{id}/{part}/**", "GET /a/**"], ["GET /a/**"]),
        (["GET /", "GET /{x}/**", "POST /**"], ["POST /**"]),
        (["GET /a/{id}/**", "GET /a/**"], []),
        (["GET /a", "GET /a/{id}", "GET /a/**"], []),
        (["|".join(STAR_METHODS) + " /a", "* /a"], ["* /a"]),
        (["|".join(STAR_METHODS[1:]) + " /a", "* /a"], []),
    ],
)
def test_routes_that_never_match(lines: list[str], never: list[str]) -> None:
    policy = policy_of([Route(line, parse_match(line)) for line in lines], STRICT)
    assert [route.name for route in never_matching(policy)] == never
