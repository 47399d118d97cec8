"""What `make compare` compares is the same policy: each Envoy starts, allows the request, and refuses those that it must refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from benchmarks import compare, contenders
from benchmarks.contenders import BODY, PATH, USER, Contender, Envoy
from benchmarks.servers import configuration, issuer, process
from extauthz.addresses import Address
from extauthz.demo.issuer import DemoIssuer
from tests.support.ports import free_port
from tests.support.world import check_request

pytestmark = pytest.mark.long

OURS = "extauthz"
NAMES = ("nothing", "cache off", "cache on", "bare", OURS, compare.FLOOR)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DemoIssuer, dict[str, Envoy]]]:
    """An issuer, and an Envoy for each way to authorize."""
    folder, scratch = tmp_path_factory.mktemp("configuration"), tmp_path_factory.mktemp("scratch")
    with ExitStack() as stack:
        issuer_port, port, bare = free_port(), free_port(), free_port()
        keys = stack.enter_context(issuer(issuer_port))
        key_set = json.dumps(keys.document("/oauth2/default/v1/keys"))
        file = configuration(folder, issuer_port, port, "nghttp2")
        stack.enter_context(process("-m", "extauthz", "serve", "--config", str(file), pinned=False))
        stack.enter_context(process(contenders.__file__, str(bare), pinned=False))
        compared = (
            Contender("nothing"),
            *(Contender(f"cache {word}", contenders.in_envoy(keys.issuer, key_set, cached=word == "on")) for word in ("off", "on")),
            Contender("bare", server=Address(host="127.0.0.1", port=bare), is_ours=False),
            (ours := Contender(OURS, server=Address(host="127.0.0.1", port=port))),
            *compare.floor(stack, scratch, ours, check_request("POST", PATH, headers(keys.token(USER)).items())),
        )
        envoys = {}
        for number, contender in enumerate(compared):
            own = contenders.own_bootstrap(file, free_port(), scratch / f"admin-{number}.sock")
            bootstrap = contenders.bootstrap_of(contender, own)
            envoys[contender.name] = stack.enter_context(contenders.running(bootstrap, scratch))
        yield keys, envoys


def headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "x-glean-auth-type": "OAUTH"}


@pytest.mark.parametrize("name", NAMES)
def test_the_request_is_allowed_everywhere(world: tuple[DemoIssuer, dict[str, Envoy]], name: str) -> None:
    keys, envoys = world
    assert contenders.request(envoys[name].port, headers(keys.token(USER, sub=USER))) == (200, BODY)


@pytest.mark.parametrize("name", ["cache off", "cache on", OURS])
def test_a_request_without_the_right_token_is_refused(world: tuple[DemoIssuer, dict[str, Envoy]], name: str) -> None:
    """By Envoy's own filters as by the sidecar, or they would be compared with something that does less."""
    keys, envoys = world
    token = keys.token(USER, sub=USER)
    wrong = {
        "no token": {},
        "forged": headers(keys.forged(token)),
        "expired": headers(keys.token(USER, lifetime=-3600)),
        "another client": headers(keys.token(USER, cid="another")),
        "another audience": headers(keys.token(USER, aud="another")),
    }
    statuses = {reason: contenders.request(envoys[name].port, sent)[0] for reason, sent in wrong.items()}
    assert set(statuses.values()) <= {401, 403}, statuses
    assert contenders.request(envoys[name].port, headers(token)) == (200, BODY)
