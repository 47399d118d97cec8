"""`extauthz explain`: where a request comes from, real tokens and described ones, and what is never printed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.cli import main
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.providers import AUDIENCE, CLIENT_ID
from tests.support.command_line import configured, created
from tests.support.pasted_tokens import PASTED, is_shown
from tests.support.served_issuer import issuer_server
from tests.support.world import check_request

ID = "9f86d081884c7d659a2feaa0c55ad015"
ROUTES = """routes:
  - {match: "POST /search", scope: SEARCH}
  - {match: "POST /chat", scope: CHAT}
  - {match: "GET /open/{name}", public: true}
"""
GLOBAL = ("--permission", "GLOBAL", "--scope", "search")
URL = "https://api.acme.com"
PROVIDER = {
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1"],
    "audience": "api://default",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration of issued tokens and one provider, which nobody asks."""
    made = configured(tmp_path_factory.mktemp("explained"), oauth=PROVIDER)
    (made / "routes.yaml").write_text(ROUTES)
    return made


@pytest.fixture(scope="module")
def token(folder: Path) -> dict[str, Any]:
    """A GLOBAL token for SEARCH."""
    return created(folder, *GLOBAL)


def explained(folder: Path, *words: str, text: str | bytes | None = None) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["explain", "--config", str(folder / "extauthz.yaml"), *words], input=text)


def document(folder: Path, *words: str, text: str | bytes | None = None) -> dict[str, Any]:
    """Run the command and return its JSON."""
    result = explained(folder, "--json", *words, text=text)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["outcome"] == "allow" else 1), result.output
    return found


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    """Return what became of each check."""
    return {check["check"]: check["outcome"] for check in found["checks"]}


def test_a_refusal_names_the_check_the_line_and_what_to_do(folder: Path) -> None:
    result = explained(folder, "--as", "USER user=ana@acme.com scopes=SEARCH", "-X", "POST", f"{URL}/chat")
    assert result.exit_code == 1
    place = f"{folder / 'routes.yaml'}:3"
    assert f"✗ scopes                     holds SEARCH; the route asks for CHAT ({place})\n" in result.stdout
    assert "· identity for the upstream  not reached\n" in result.stdout
    assert "Refused: scope_missing (403: The token lacks a scope that this route requires.)\n" in result.stdout
    assert "What would make it pass:\n  add the scope CHAT to the token\n" in result.stdout


def test_an_allow_shows_the_headers_for_the_upstream(folder: Path) -> None:
    line = f"curl -s {URL}/search -H 'X-Scio-ActAs: ana@acme.com' --json '{{}}' -b session=0123456789abcdef -H 'X-Own: mine'"
    found = document(folder, "--as", "GLOBAL scopes=SEARCH", "--curl", line)
    assert (found["outcome"], found["reason"], found["route"]) == ("allow", "allowed", "POST /search")
    assert found["headers"] == {
        **dict.fromkeys(("user-agent", "accept", "content-type", "cookie", "x-own")),
        "x-extauthz-decision-id": "<id of the decision>",
        "x-extauthz-actor": "token:000000000000",
        "x-extauthz-auth-type": "GLOBAL",
        "x-extauthz-scopes": "SEARCH",
        "x-extauthz-user": "ana@acme.com",
    }
    assert found["removed"] == ["x-scio-actas", "authorization"]
    assert [check["place"] for check in found["checks"] if check["check"] == "act_as"] == [f"{folder / 'extauthz.yaml'}:3"]


@pytest.mark.parametrize("stdin", [False, True])
def test_a_public_route_needs_no_other_check(folder: Path, stdin: bool) -> None:
    line = f"curl '{URL}/open/x' | jq ."
    found = document(folder, "--curl", "-", text=line) if stdin else document(folder, "--curl", line)
    reached = {"request": "passed", "route": "passed", "method_in_query": "passed", "public": "passed"}
    rest = ("credential", "token", "kind", "act_as", "anonymous", "scopes", "identity")
    assert outcomes(found) == reached | dict.fromkeys(rest, "not_needed")
    assert "What stands behind the first command was left out." in found["notes"]


def test_a_real_issued_token_is_verified_against_the_store(folder: Path, token: dict[str, Any]) -> None:
    sends = ("curl", "-X", "POST", f"{URL}/search", "-H", f"Authorization: Bearer {token['token']}")
    good = explained(folder, *sends, "-H", "X-Scio-ActAs: ana@acme.com")
    assert good.exit_code == 0
    assert f"✓ verified token             GLOBAL token of token:{token['id']}, until " in good.stdout
    assert token["token"].split("_")[2] not in good.output
    wrong = token["token"][:-1] + ("a" if token["token"][-1] != "a" else "b")
    assert document(folder, *sends[:-1], f"Authorization: Bearer {wrong}")["reason"] == "token_checksum"
    assert document(folder, *sends)["reason"] == "act_as_missing"
    described = document(folder, "--as", "GLOBAL scopes=SEARCH reason=token_revoked", *sends)
    assert (described["reason"], outcomes(described)["token"]) == ("token_revoked", "failed")
    assert "The token of the request was not looked at, because of --as." in described["notes"]


def test_the_store_names_who_has_the_scope(folder: Path, token: dict[str, Any]) -> None:
    words = ("--store", "--as", "USER user=ana@acme.com scopes=CHAT", "-d", "x", f"{URL}/search")
    remedy = f"use the token that has it: {token['id']} (extauthz token show ID)"
    assert document(folder, *words)["remedies"][-1] == remedy
    nobody = document(folder, *words[:2], "USER user=ana@acme.com scopes=SEARCH", "-d", "x", f"{URL}/chat")
    assert nobody["remedies"][-1] == "no active token of the store has it"


def test_an_access_token_is_not_verified_unless_that_is_asked_for(folder: Path) -> None:
    sends = ("--", "-d", "x", f"{URL}/chat", "-H", "X-Glean-Auth-Type: OAUTH", "--oauth2-bearer", "abc.def.ghi")
    found = document(folder, *sends)
    assert (found["outcome"], found["reason"]) == ("unknown", None)
    assert outcomes(found)["token"] == "unknown"
    assert {name: outcome for name, outcome in outcomes(found).items() if outcome == "not_reached"}.keys() == {
        *("kind", "act_as", "anonymous", "scopes", "identity")
    }
    assert "--verify asks its provider" in " ".join(found["notes"])
    # A text that is no token of the provider is refused without a question.
    assert document(folder, "--verify", *sends)["reason"] == "token_malformed"


def test_an_access_token_is_verified_by_its_provider_when_that_is_asked_for(tmp_path: Path) -> None:
    with issuer_server() as server:
        server.issuer = DemoIssuer(server.base)
        entry = {"provider": "okta", "issuer": server.issuer.issuer, "client_ids": [CLIENT_ID], "audience": AUDIENCE}
        made = configured(tmp_path, oauth=entry)
        (made / "routes.yaml").write_text(ROUTES)
        sends = ["-d", "x", f"{URL}/chat", "-H", "X-Glean-Auth-Type: OAUTH", "--oauth2-bearer"]
        good = document(made, "--verify", "curl", *sends, server.issuer.token("ana@acme.com"))
        wrong = document(made, "--verify", "curl", *sends, server.issuer.token("ana@acme.com", aud="api://other"))
    assert (good["outcome"], good["headers"]["x-extauthz-user"]) == ("allow", "ana@acme.com")
    assert (wrong["outcome"], wrong["reason"]) == ("deny", "token_audience")


@pytest.mark.parametrize("form", ["binary", "json", "json of Envoy"])
def test_a_check_request_is_read_in_either_form(folder: Path, tmp_path: Path, form: str) -> None:
    data = check_request("POST", "/chat", [("authorization", "Basic YTpi")])
    if form != "binary":
        text = json_format.MessageToJson(pb.CheckRequest.FromString(data), preserving_proto_field_name=form == "json of Envoy")
        data = text.replace("{", '{"unknown": {"x": 1}, ', 1).encode()
    (tmp_path / "check").write_bytes(data)
    assert document(folder, "--check-request", str(tmp_path / "check"))["reason"] == "scheme_unsupported"
    assert document(folder, "--check-request", "-", text=data)["reason"] == "scheme_unsupported"
    assert document(folder, "--check-request", "-", text=b"\xff")["reason"] == "request_malformed"


RECORD = {
    "time": 1_800_000_000.5,
    "decision": "deny",
    "reason": "scope_missing",
    "status": 403,
    "decision_id": ID,
    "method": "POST",
    "path": "/chat",
    "route": "POST /chat",
    "auth_type": "GLOBAL",
    "actor": "token:0a1b2c3d4e5f",
    "user": "ana@acme.com",
    "token_id": "0a1b2c3d4e5f",
    "required_scopes": "CHAT",
    "held_scopes": "SEARCH",
}


def test_a_line_of_the_log_is_explained(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_text(json.dumps(RECORD) + "\n")
    found = document(folder, "--log-line", str(tmp_path / "line"))
    assert (found["reason"], found["checks"][9]["value"]) == ("scope_missing", "holds SEARCH")
    other = document(folder, "--log-line", "-", text=json.dumps(RECORD | {"path": "/search", "route": "POST /search"}))
    assert (other["outcome"], other["checks"][9]["outcome"]) == ("allow", "passed")
    assert other["notes"][-1].startswith("The log says scope_missing: the configuration has changed since")
    unnamed = {name: value for name, value in RECORD.items() if name not in ("user", "held_scopes")} | {
        "reason": "act_as_forbidden"
    }
    stranger = document(folder, "--log-line", "-", text=json.dumps(unnamed))
    assert (stranger["reason"], ["invalid" in remedy for remedy in stranger["remedies"]]) == ("act_as_forbidden", [False])
    described = document(folder, "--as", "USER user=ana@acme.com scopes=CHAT", "--log-line", "-", text=json.dumps(RECORD))
    assert described["reason"] == "act_as_not_allowed"


@contextmanager
def sidecar(decisions: list[dict[str, Any]]) -> Iterator[str]:
    """A listener that answers as the ops listener of a sidecar does; yields its address."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = {"decisions": decisions, "workers": {"asked": 1}, "started": 0.0}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
    assert {path.partition("&")[0] for path in asked} == {f"/decisions?id={ID}"}


def test_a_decision_of_a_running_sidecar_is_explained(folder: Path) -> None:
    with sidecar([RECORD]) as address:
        assert document(folder, "--live", ID, "--ops", address)["reason"] == "scope_missing"
    with sidecar([]) as address:
        result = explained(folder, "--live", ID, "--ops", address)
    assert (result.exit_code, "does not have this decision" in result.stderr) == (1, True)
    gone = explained(folder, "--live", ID, "--ops", address)
    assert (gone.exit_code, "is the sidecar running?" in gone.stderr) == (1, True)


WRONG: dict[str, tuple[str, ...]] = {
    "--curl and the request: give one of them": ("--curl", "curl x", "http://x"),
    "no URL": ("curl",),
    "--zzz is not known": ("curl", "--zzz"),
    "--ops needs --live": ("--ops", "127.0.0.1:1", "http://x"),
    "--live: a decision id has 32 hex digits": ("--live", "abc"),
    "--log-line: 2 lines in place of one": ("--log-line", "-"),
    "--check-request: the file cannot be read": ("--check-request", "/nowhere/x"),
    "unknown kind of caller 'globl', did you mean 'GLOBAL'?": ("--as", "globl", "http://x"),
    "Option '--as' requires an argument": ("--as",),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_flags_are_told(folder: Path, message: str) -> None:
    result = explained(folder, *WRONG[message], text="{}\n{}")
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_broken_configuration_is_told(tmp_path: Path) -> None:
    configured(tmp_path, routes=["other.yaml"])
    result = explained(tmp_path, "--as", "nobody", f"{URL}/chat")
    assert (result.exit_code, "no such file" in result.stderr) == (3, True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_marks_gets_words(folder: Path, encoding: str) -> None:
    runner = CliRunner(charset=encoding)
    words = ["explain", "--config", str(folder / "extauthz.yaml"), "--as", "nobody", "-d", "x", f"{URL}/chat"]
    found = runner.invoke(main, words).stdout
    assert "ok route                      POST /chat; 'POST /chat' matches" in found
    assert "NO credential                 no Authorization header; a Bearer token\n" in found
    assert "-- scopes                     not reached; the route asks for CHAT" in found


PLACES: tuple[tuple[str, ...], ...] = (
    ("-d", "x", f"{URL}/chat", "-H", "Authorization: Bearer {}"),
    ("-d", "x", f"{URL}/chat", "-H", "Authorization: {}"),
    ("-d", "x", f"{URL}/chat", "-H", "Authorization: Bearer {}, Bearer {}"),
    ("-d", "x", f"{URL}/chat", "--oauth2-bearer", "{}", "-H", "X-Glean-Auth-Type: OAUTH"),
    ("-d", "x", f"{URL}/chat", "-H", "Authorization: Bearer x", "-H", "X-Glean-Auth-Type: {}"),
    ("-d", "x", f"{URL}/chat", "-u", "ana:{}"),
    ("-d", "x", "https://ana:{}@api.acme.com/chat"),
    ("-d", "x", f"{URL}/chat?access_token={{}}"),
    ("-d", "x", f"{URL}/chat?_method={{}}"),
    (f"{URL}/open/{{}}",),
    (f"{URL}/nowhere/{{}}/x",),
    (f"{URL}//{{}}",),
    (f"{URL}/open/%7B{{}}%7D",),
    ("https://{}.acme.com/open/x",),
    (f"{URL}/open/x", "-b", "session={}"),
    (f"{URL}/open/x", "-H", "X-Api-Key: {}"),
    (f"{URL}/open/x", "-H", "{}"),
    (f"{URL}/open/x", "-H", "a {}: b"),
    (f"{URL}/open/x", "-H", "x-extauthz-user: {}"),
    ("-X", "{}", f"{URL}/chat"),
    ("-d", "{}", f"{URL}/chat", "-x", "http://{}"),
    ("--{}", f"{URL}/chat"),
    ("--{}={}", f"{URL}/chat"),
    ("-{}", f"{URL}/chat"),
    ("{}",),
    (f"{URL}/a", "{}"),
    ("-d", "x", f"{URL}/search", "-H", "X-Scio-ActAs: {}", "-H", "Authorization: Bearer <global>"),
    ("-d", "x", f"{URL}/search", "-H", "X-Scio-ActAs: {}@acme.com", "-H", "Authorization: Bearer <global>"),
)
FLAGS: tuple[tuple[str, ...], ...] = (
    *(("--as", "{}", f"{URL}/x"), ("--as", "GLOBAL scopes={}", f"{URL}/x"), ("--as", "oauth {}", f"{URL}/x")),
    *(("--live", "{}"), ("--ops", "{}", "--live", ID), ("--log-line", "{}"), ("--check-request", "{}"), ("--curl", "{}")),
    *(("--curl", "curl '{}"), ("--curl", "{} | {}"), ("--json={}", f"{URL}/x"), ("--cert", "{}")),
)


@pytest.mark.parametrize("length", [40, 400])
@pytest.mark.parametrize("flags", [("--config", "{}"), ("--config={}",), ("--config", "{}/extauthz.yaml")])
def test_no_token_is_printed_that_stands_in_place_of_the_configuration(
    token: dict[str, Any], flags: tuple[str, ...], length: int
) -> None:
    for secret in (token["token"], f"eyJhbGciOiJSUzI1NiJ9.{'c2ln' * (length // 4)}", f"ya29.{'a0Xq' * (length // 4)}"):
        result = CliRunner().invoke(main, ["explain", *(flag.format(secret) for flag in flags), "curl", URL])
        assert result.exit_code == 3, result.output
        assert secret[-16:] not in result.output
        assert "[hidden]" in result.stderr


def test_the_configuration_that_has_the_error_is_named(tmp_path: Path) -> None:
    file = tmp_path / "extauthz-of-eu-west-1-production.yaml"
    file.write_text("routes: 1")
    result = CliRunner().invoke(main, ["explain", "--config", str(file), "curl", URL])
    assert (result.exit_code, f"{file}:1: " in result.stderr) == (3, True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=PASTED, place=st.sampled_from((*PLACES, *FLAGS)), as_json=st.booleans())
def test_no_secret_is_printed_wherever_it_is_pasted(
    folder: Path, token: dict[str, Any], secret: str, place: tuple[str, ...], as_json: bool
) -> None:
    words = [word.replace("{}", secret).replace("<global>", token["token"]) for word in place]
    begin = [*(["--json"] if as_json else []), *(["curl"] if place in PLACES else [])]
    result = explained(folder, *begin, *words, text=f'{{"reason": "{secret}", "x": {secret}')
    assert result.exit_code in (0, 1, 2), result.output  # why: a place decides which, and what is printed is the question here
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    shown = result.output
    assert not is_shown(secret, shown)
    assert token["token"].split("_")[2] not in shown
