"""The API against its own OpenAPI document, by schemathesis with every check on; `make test` takes few examples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.python import asgi

from extauthz.admin.rights import Role
from extauthz.console.api.document import document
from tests.support.console_api import DAY, OKTA, ApiWorld, api_world

EXAMPLES = int(os.environ.get("EXTAUTHZ_API_EXAMPLES", "5"))
"""More of them take longer, and find what few do not."""
AS_WRITTEN = {key: value for key, value in OKTA.items() if key != "enabled"}
LETTERS = st.characters(categories=("L", "N", "P", "S"))
# What a schema cannot say, see `console.api.values`.
FORMATS = {
    "printable": st.text(LETTERS, min_size=1, max_size=25),
}
# A missing If-Match has a status of its own (RFC 6585 3), which schemathesis does not expect.
# All other methods are asked in test_api_requests.
CONFIG = {
    "checks": {"missing_required_header": {"expected-statuses": [400, 401, 403, 406, 415, 422, 428]}},
    "phases": {"coverage": {"unexpected-methods": ["PATCH"]}},
}
run = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def formats() -> Iterator[None]:
    """Tell schemathesis what the formats stand for."""
    for name, strategy in FORMATS.items():
        schemathesis.openapi.format(name, strategy)
    yield
    for name in FORMATS:
        schemathesis.specs.openapi.formats.unregister_string_format(name)


# schemathesis makes its requests before there is a world: this stands in them for the keys.
STAND_INS = {role: f"Bearer the-key-of-a-{role}" for role in Role}
SCHEMA = schemathesis.openapi.from_dict(
    document(["CHAT", "DOCPERMISSIONS", "SEARCH"], 365 * DAY), config=schemathesis.Config.from_dict(CONFIG)
)


# By a plain header it would be sent again where the checks take it away.
@SCHEMA.auth()
class StandIn:
    """Who asks, unless somebody else is named."""

    def get(self, case: Any, context: Any) -> str:
        """Return what stands for the key of a super admin."""
        return STAND_INS[Role.SUPER_ADMIN]

    def set(self, case: Any, data: str, context: Any) -> None:
        """Put it into a request."""
        case.headers = {**(case.headers or {}), "Authorization": data}


class Asked:
    """Passes requests on to the world of the moment, with the keys that are meant; a minute goes by with each of them."""

    world: ApiWorld | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        world = self.world
        assert world is not None
        # So that wrong keys make nobody wait.
        world.now += 60
        keys = {STAND_INS[role].encode(): world.bearer(role)["Authorization"].encode() for role in Role}
        headers = [(name, keys.get(value, value)) for name, value in scope.get("headers", ())]
        await world.app({**scope, "headers": headers}, receive, send)


SCHEMA.app = Asked()


@pytest.fixture(scope="module", autouse=True)
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client for all requests: one of its own for each of them takes longer than the request."""
    with api_world(tmp_path_factory.mktemp("api"), oauth=AS_WRITTEN, act_as={"allow": ["*@*"]}) as world:
        SCHEMA.app.world = world
        with asgi.get_client(SCHEMA.app) as opened:
            yield opened


@SCHEMA.parametrize()
@run
def test_the_api_is_what_its_document_says(case: Any, client: Any) -> None:
    answer = case.call_and_validate(session=client)
    # What changed something is refused to those who may not change it.
    is_change = case.method != "GET" and answer.status_code < 300
    is_global = isinstance(case.body, dict) and case.body.get("permission") == "GLOBAL"
    roles = [Role.VIEWER, *([Role.ADMIN] if is_global else [])] if is_change else []
    assert [sent(case, role, client) for role in roles] == [403] * len(roles)


def sent(case: Any, role: Role, client: Any) -> int:
    """Send the same request as somebody else; return the status."""
    return int(case.call(session=client, headers={"Authorization": STAND_INS[role]}).status_code)
