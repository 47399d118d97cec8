"""The shipped route maps against the table of operations that was drawn from the vendor's API description (its source is in it)."""

from __future__ import annotations

import json
import re
import shutil
from typing import NamedTuple

import pytest
import yaml

from extauthz.config.loader import Configuration, load
from extauthz.core.model import AuthType, Reason
from extauthz.core.paths import parse
from extauthz.core.policy import Policy
from extauthz.core.routes import ACCEPTED_BY_DEFAULT, Route
from tests.support.project import ROOT, TESTS

CONFIG = ROOT / "config"
TABLE = TESTS / "config" / "route_scope_table.json"
NEWER = CONFIG / "routes" / "glean-newer-scopes.yaml"


class Row(NamedTuple):
    """One operation: its scope as the table has it, None if no document names one."""

    family: str
    method: str
    path: str
    scope: str | None
    basis: str

    @property
    def operation(self) -> str:
        return f"{self.method} {self.path}"


ROWS = [Row(**row) for row in json.loads(TABLE.read_text())["rows"]]
CLIENT = [row for row in ROWS if row.family == "client"]

# The table calls the scope of this operation ambiguous: both candidates are asked for.
ALL_OF = {"POST /rest/api/v1/messages": ("DOCUMENTS", "SEARCH")}
# No scope is documented for them: one mints tokens, the other starts authorization flows.
DENIED_OPERATIONS = {"POST /rest/api/v1/createauthtoken", "POST /rest/api/v1/checkdatasourceauth"}
# Scopes that are not among the 17: every operation that needs one is denied until glean-newer-scopes.yaml is added.
DENIED_SCOPES = {"AGENTS", "TOOLS"}
ANONYMOUS = {"POST /rest/api/v1/search", "POST /rest/api/v1/autocomplete"}

# In the newer file: two guides ask for CHAT as well to run an agent.
NEWER_ALL_OF = {
    "POST /rest/api/v1/agents/runs/stream": ("AGENTS", "CHAT"),
    "POST /rest/api/v1/agents/runs/wait": ("AGENTS", "CHAT"),
}
NEWER_FAMILIES = {"admin", "platform", "mcp"}
# Skills: no document names their scope; the table has a question mark.
UNMAPPED_SCOPES = {"SKILLS?"}


@pytest.fixture(scope="module")
def shipped() -> Configuration:
    """The configuration as it is shipped."""
    return load(CONFIG / "extauthz.yaml")


@pytest.fixture(scope="module")
def with_newer(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    """The shipped configuration after the three steps in the head of glean-newer-scopes.yaml."""
    folder = tmp_path_factory.mktemp("config")
    shutil.copytree(CONFIG / "routes", folder / "routes")
    settings = yaml.safe_load((CONFIG / "extauthz.yaml").read_text())
    settings["scopes"] += newer_scopes()
    settings["routes"].append("routes/glean-newer-scopes.yaml")
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return load(folder / "extauthz.yaml")


def newer_scopes() -> list[str]:
    """Return the scopes that the head of the file says are to be added."""
    head = NEWER.read_text().partition("routes:\n")[0]
    step = re.search(r"1\. add the scopes.*?:\n#\s+(.*?)\n#\s+2\. ", head, re.DOTALL)
    assert step, "the head does not list the scopes of step 1"
    found = yaml.safe_load(f"[{step[1]}]")
    assert isinstance(found, list)
    return found


def route_of(policy: Policy, row: Row) -> Route | Reason:
    """Send a request for the operation through the look-up, with something in the place of each parameter."""
    target = parse(re.sub(r"\{[^}]*\}", "x1", row.path))
    assert not isinstance(target, Reason)
    return policy.routes.find(row.method, target)


def routes_in(name: str) -> dict[str, dict[str, object]]:
    """Return the lines of a route file by their match."""
    entries = yaml.safe_load((CONFIG / "routes" / name).read_text())["routes"]
    return {entry["match"]: entry for entry in entries}


def ids(row: Row) -> str:
    return row.operation


def test_the_table_is_whole() -> None:
    assert (len(ROWS), len(CLIENT)) == (220, 72)
    assert len({row.operation for row in CLIENT}) == 72
    operations = {row.operation for row in CLIENT}
    assert operations >= ALL_OF.keys() | DENIED_OPERATIONS | ANONYMOUS | NEWER_ALL_OF.keys()


@pytest.mark.parametrize("row", CLIENT, ids=ids)
def test_every_client_operation_has_its_scope_or_is_denied_on_purpose(shipped: Configuration, row: Row) -> None:
    route = route_of(shipped.policy, row)
    assert isinstance(route, Route), route
    if row.operation in DENIED_OPERATIONS or row.scope in DENIED_SCOPES:
        assert (route.deny, route.scopes) == (True, ())
    else:
        assert row.scope is not None
        assert (route.scopes, route.any_scope, route.public, route.deny) == (
            ALL_OF.get(row.operation, (row.scope,)),
            False,
            False,
            False,
        )
        assert route.match.text == row.operation
        assert route.accept == ACCEPTED_BY_DEFAULT | ({AuthType.ANONYMOUS} if row.operation in ANONYMOUS else set())


def test_every_open_route_is_an_operation_of_the_client_api() -> None:
    open_routes = {match for match, entry in routes_in("glean-client-api.yaml").items() if not entry.get("deny")}
    mapped = {row.operation for row in CLIENT if row.operation not in DENIED_OPERATIONS and row.scope not in DENIED_SCOPES}
    assert open_routes == mapped


def test_every_denied_route_denies_something_of_the_table(shipped: Configuration) -> None:
    denied = {match for match, entry in routes_in("glean-client-api.yaml").items() if entry.get("deny")}
    hit = {route.match.text for row in CLIENT if isinstance(route := route_of(shipped.policy, row), Route) and route.deny}
    assert denied == hit


@pytest.mark.parametrize("row", [row for row in ROWS if row.family != "client"], ids=ids)
def test_no_other_family_is_open(shipped: Configuration, row: Row) -> None:
    """Indexing needs another kind of token, removed operations are gone, and the rest has newer scopes or none."""
    route = route_of(shipped.policy, row)
    assert (route.deny if isinstance(route, Route) else route is Reason.ROUTE_UNKNOWN) is True


def test_the_vocabulary_is_that_of_the_client_api(shipped: Configuration) -> None:
    asked_for = {row.scope for row in CLIENT} - DENIED_SCOPES - {None}
    assert set(shipped.settings.scopes) == asked_for
    assert len(shipped.settings.scopes) == 17


def test_the_basis_of_each_scope_stands_behind_its_route() -> None:
    """The comment of a line is the table's word for where the scope comes from."""
    words = {"documented": "documented", "inferred": "tag", "scope-text": "scope text"}
    text = (CONFIG / "routes" / "glean-client-api.yaml").read_text()
    comments = dict(re.findall(r'^  - \{match: "([^"]+)", scope: [^}]*\} +# (.+)$', text, re.MULTILINE))
    expected = {row.operation: words[row.basis] for row in CLIENT if row.operation in comments}
    assert comments.keys() == {match for match, entry in routes_in("glean-client-api.yaml").items() if "scope" in entry}
    assert {operation: re.split(r"[,;]| Search", comment)[0] for operation, comment in comments.items()} == expected


# With glean-newer-scopes.yaml


def test_the_newer_scopes_are_those_that_its_routes_name(shipped: Configuration) -> None:
    named = set()
    for entry in routes_in("glean-newer-scopes.yaml").values():
        for key in ("scope", "all_of", "any_of"):
            value = entry.get(key, [])
            named |= {value} if isinstance(value, str) else set(value) if isinstance(value, list) else set()
    assert set(newer_scopes()) == named - set(shipped.settings.scopes)


def test_the_newer_routes_only_take_parts_of_denials(with_newer: Configuration) -> None:
    denials = {match for match, entry in routes_in("glean-client-api.yaml").items() if match.startswith("* ") and entry.get("deny")}
    assert len(denials) == 4
    assert len(with_newer.warnings) == len(denials)
    for warning in with_newer.warnings:
        assert "takes a part of this stricter route" in warning.message
        assert warning.file.endswith("glean-client-api.yaml")
    lines = (CONFIG / "routes" / "glean-client-api.yaml").read_text().splitlines()
    assert {re.findall(r'"(.+?)"', lines[warning.line - 1])[0] for warning in with_newer.warnings} == denials


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.scope not in UNMAPPED_SCOPES and (row.scope in DENIED_SCOPES or row.family in NEWER_FAMILIES)],
    ids=ids,
)
def test_the_newer_routes_have_the_scopes_of_the_table(with_newer: Configuration, row: Row) -> None:
    route = route_of(with_newer.policy, row)
    if row.family == "client-removed-2025-04-28":
        assert route is Reason.ROUTE_UNKNOWN
        return
    assert isinstance(route, Route), route
    assert row.scope is not None
    scopes = NEWER_ALL_OF.get(row.operation, tuple(row.scope.upper().split("|")))
    assert (route.scopes, route.deny, route.public, route.accept) == (scopes, False, False, ACCEPTED_BY_DEFAULT)
    assert route.any_scope == ("|" in row.scope)
    assert route.match.text == row.operation


@pytest.mark.parametrize("row", [row for row in CLIENT if row.scope not in DENIED_SCOPES], ids=ids)
def test_the_newer_routes_change_nothing_else(shipped: Configuration, with_newer: Configuration, row: Row) -> None:
    assert route_of(with_newer.policy, row) == route_of(shipped.policy, row)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.scope in UNMAPPED_SCOPES or row.family in ("indexing", "public")], ids=ids
)
def test_what_has_no_scope_stays_closed(with_newer: Configuration, row: Row) -> None:
    assert route_of(with_newer.policy, row) is Reason.ROUTE_UNKNOWN


def test_every_newer_route_is_an_operation_of_the_table() -> None:
    assert routes_in("glean-newer-scopes.yaml").keys() <= {row.operation for row in ROWS}


@pytest.mark.parametrize("line", ["GET /rest/api/v1/agents/a/b/c", "DELETE /rest/api/v1/tools/list", "POST /rest/api/v1/actions"])
def test_what_the_newer_routes_do_not_name_stays_denied(with_newer: Configuration, line: str) -> None:
    method, path = line.split()
    route = route_of(with_newer.policy, Row("client", method, path, None, ""))
    assert (route.deny if isinstance(route, Route) else route is Reason.METHOD_NOT_ALLOWED) is True
