"""`extauthz replay`: what it prints, reads and exits with."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main
from extauthz.cli.replay import FAILING
from extauthz.tools.log_lines import Undecidable
from extauthz.tools.replay_report import ReplayDifference
from tests.support.command_line import SETTINGS, created, folder
from tests.support.world import DECISION_ID, NOW

__all__ = ["folder"]

GLOBAL = {"auth_type": "GLOBAL", "actor": "token:abc", "token_id": "abc", "user": "ana@acme.com"}


def line(reason: str = "allowed", **more: Any) -> str:
    given = {"decision": "allow" if reason in ("allowed", "public") else "deny", "reason": reason, "route": "POST /search"}
    return json.dumps(given | {"method": "POST", "path": "/search", "time": NOW, "decision_id": DECISION_ID} | more)


LOG = [
    *[line("scope_missing", **GLOBAL, held_scopes="CHAT")] * 3,
    line("credential_missing"),
    line(**GLOBAL),
    line("public", route="GET /open", method="GET", path="/open", sample=0.1),
    line("route_unknown", route=None, path="/new"),
]
RECORDED = {
    "version": 1,
    "method": "POST",
    "path": "/search?q=who",
    "host": "api.acme.com",
    "headers": {"x-scio-actas": "ana@acme.com"},
    "caller": "GLOBAL scopes=CHAT token=abc",
    "decision": "deny",
    "reason": "scope_missing",
    "route": "POST /search",
    "time": 1.0,
}
NEW = [{"match": "POST /search", "scope": "CHAT"}, {"match": "POST /new", "public": True}]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "decisions.log"
    file.write_text("\n".join(LOG) + "\n", encoding="utf-8")
    return file


def renew(folder: Path, routes: Any = NEW, **changes: Any) -> None:
    """Write the new configuration."""
    (folder / "routes.yaml").write_text(yaml.safe_dump({"routes": routes}))
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | changes))


def run(folder: Path, *arguments: object, stdin: str | bytes | None = None) -> Result:
    words = ["replay", *map(str, arguments), "--config", str(folder / "extauthz.yaml")]
    return CliRunner().invoke(main, words, input=stdin)


def told(folder: Path, *arguments: object, stdin: str | bytes | None = None) -> dict[str, Any]:
    result = run(folder, *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_what_differs_is_shown_for_programs(folder: Path, log: Path) -> None:
    renew(folder)
    found = told(folder, log)
    counts = {name: found[name] for name in ("decisions", "same", "widened", "narrowed", "reason", "route", "undecidable")}
    assert counts == {"decisions": 16, "same": 1, "widened": 4, "narrowed": 10, "reason": 0, "route": 0, "undecidable": 1}
    assert (found["lines"], found["broken_lines"], found["sampled_lines"]) == (7, 0, 1)
    rows = [
        (row["change"], row["before"]["reason"], row["now"]["reason"], row["now"]["route"], row["count"]) for row in found["rows"]
    ]
    assert rows == [
        ("widened", "scope_missing", "allowed", "POST /search", 3),
        ("widened", "route_unknown", "public", "POST /new", 1),
        ("narrowed", "public", "route_unknown", None, 10),
    ]
    example = {
        "decision_id": DECISION_ID,
        "time": "2027-01-15T08:00:00Z",
        "method": "POST",
        "path": "/search",
        "caller": "token:abc",
    }
    assert found["rows"][0]["examples"] == [example] * 3
    (left_open,) = found["undecidable_rows"]
    assert (left_open["why"], left_open["count"], left_open["what_to_do"]) == ("scopes", 1, Undecidable.SCOPES.hint)
    assert [note for note in found["notes"] if "samples" in note]


def test_what_differs_is_shown_for_people(folder: Path, log: Path) -> None:
    renew(folder)
    result = run(folder, log)
    assert result.exit_code == 0
    assert result.stdout.startswith("about 16 decisions: 1 the same, 14 different,\n1 not decidable from the log.\n")
    assert re.search(r"^  widened +4  would be let through", result.stdout, re.MULTILINE)
    rows = [re.split(" {2,}", text) for text in result.stdout.splitlines()]
    shown = f"POST /search by token:abc ({DECISION_ID})"
    assert ["3", "widened", "deny scope_missing", "allow allowed", "POST /search"] in [row[:5] for row in rows]
    assert ["10", "narrowed", "allow public", "deny route_unknown", "GET /open → (no route)"] in [row[:5] for row in rows]
    assert shown in result.stdout
    assert f"  scopes: {Undecidable.SCOPES.hint}" in result.stdout
    assert "note: A decision log has no query" in result.stderr


def test_nothing_differs(folder: Path, log: Path) -> None:
    log.write_text(LOG[3])
    result = run(folder, log, "--fail-on", "any", "--fail-on", "route", "--fail-on", "undecidable")
    assert (result.exit_code, result.stdout) == (0, "1 decision: 1 the same, 0 different,\n0 not decidable from the log.\n")


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (LOG[0], {"widened", "any"}),
        (LOG[5], {"narrowed", "any"}),
        (LOG[4], {"undecidable"}),
        (line("credential_missing", route="an earlier name"), {"route"}),
        (line("route_unknown", route=None, method="GET"), {"reason", "any"}),
        (LOG[3], set()),
    ],
)
def test_a_gate_fails_on_what_it_names(folder: Path, text: str, fails: set[str]) -> None:
    renew(folder)
    codes = {name: run(folder, "-", "--fail-on", name, stdin=text).exit_code for name in FAILING}
    assert codes == {name: int(name in fails) for name in FAILING}
    assert run(folder, "-", stdin=text).exit_code == 0
    assert {*ReplayDifference, "undecidable", "any"} == set(FAILING)


def test_several_logs_compressed_recorded_and_standard_input(folder: Path, log: Path, tmp_path: Path) -> None:
    renew(folder)
    packed, recorded = tmp_path / "old.log.gz", tmp_path / "requests.jsonl"
    packed.write_bytes(gzip.compress("\n".join(LOG).encode()))
    recorded.write_text(json.dumps(RECORDED))
    assert told(folder, log, packed, recorded, "-", stdin=LOG[0])["widened"] == 2 * 4 + 2
    found = told(folder, recorded)
    assert [(row["change"], row["examples"][0]["path"], row["count"]) for row in found["rows"]] == [("widened", "/search", 1)]
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("authorization", "now"), [("Bearer removed", "credential_not_read"), ("", "credential_missing"), (None, "credential_missing")]
)
def test_a_recording_tells_whether_there_was_a_token(folder: Path, authorization: str | None, now: str) -> None:
    renew(folder, [{"match": "GET /closed", "scope": "CHAT"}])
    headers = {} if authorization is None else {"authorization": authorization}
    denied = {"method": "GET", "path": "/closed", "reason": "route_denied", "caller": "nobody", "route": "GET /closed"}
    found = told(folder, "-", stdin=json.dumps(RECORDED | denied | {"headers": headers}))
    assert [row.get("why") or row["now"]["reason"] for row in found["rows"] + found["undecidable_rows"]] == [now]


@pytest.mark.parametrize(
    ("caller", "undecidable"),
    [("GLOBAL scopes=CHAT,A_SCOPE_OF_BEFORE", 0), ("oauth user=ana@acme.com provider=gone scopes=CHAT", 1), ("who knows", 1)],
)
def test_a_recorded_caller_that_the_new_configuration_lacks(folder: Path, caller: str, undecidable: int) -> None:
    renew(folder)
    found = told(folder, "-", stdin=json.dumps(RECORDED | {"caller": caller}))
    assert (found["undecidable"], found["widened"]) == (undecidable, 1 - undecidable)


def test_the_store_tells_the_scopes_of_a_token(folder: Path) -> None:
    made = created(folder, "--permission", "GLOBAL", "--scope", "SEARCH")
    renew(folder)
    known = line(**GLOBAL | {"token_id": made["id"]})
    assert told(folder, "-", stdin=known)["undecidable"] == 1
    found = told(folder, "-", "--store", stdin=known)
    assert [(row["change"], row["now"]["reason"]) for row in found["rows"]] == [("narrowed", "scope_missing")]
    assert told(folder, "-", "--store", stdin=line(**GLOBAL))["undecidable"] == 1


def test_without_a_store_the_flag_is_refused(folder: Path, log: Path) -> None:
    result = run(folder, log, "--store")
    assert (result.exit_code, "no token store" in result.stderr) == (1, True)


def test_what_is_wrong_is_told(folder: Path, log: Path, tmp_path: Path) -> None:
    broken = run(folder, "-", stdin="no decision\n{}\n")
    assert (broken.exit_code, "no decisions found, 2 lines without one" in broken.stderr) == (1, True)
    assert "1 line left out that is no decision" in run(folder, "-", stdin=f"nothing\n{LOG[0]}").stderr
    assert run(folder, tmp_path / "missing").exit_code == 2
    assert run(folder, log, "--fail-on", "all").exit_code == 2
    renew(folder, [{"match": "nonsense"}])
    assert run(folder, log).exit_code == 3


def test_more_rows_than_the_limit_are_announced(folder: Path, log: Path) -> None:
    renew(folder)
    result = run(folder, log, "--limit", "1")
    assert "There are 2 more rows: --limit 3" in result.stderr


def test_only_a_part_of_the_time(folder: Path, log: Path) -> None:
    renew(folder)
    assert told(folder, log, "--since", "2027-01-15", "--until", "2027-01-15")["lines"] == 7
    assert "no decisions found" in run(folder, log, "--since", "2027-01-16").stderr


def test_no_token_is_printed(folder: Path) -> None:
    made = created(folder, "--permission", "GLOBAL", "--scope", "SEARCH")
    renew(folder)
    token = made["token"]
    texts = [
        line("route_unknown", route=f"/{token}", path=f"/new/{token}", user=token),
        json.dumps(RECORDED | {"path": f"/search?access_token={token}", "caller": f"GLOBAL scopes=CHAT token={token}"}),
        json.dumps(RECORDED | {"caller": token, "headers": {"authorization": f"Bearer {token}"}, "path": f"/{token}"}),
    ]
    for flags in ([], ["--json"]):
        result = run(folder, "-", *flags, stdin="\n".join(texts))
        assert result.exit_code == 0, result.output
        assert token.split("_")[2][:12] not in result.output


def test_ten_thousand_lines_take_less_than_a_second_of_the_processor(folder: Path) -> None:
    """A hundred microseconds a line; it takes about fifteen. A million are in the benchmark."""
    renew(folder)
    text = "\n".join(line("scope_missing", **GLOBAL, held_scopes="CHAT", path=f"/search/{number}") for number in range(10_000))
    started = time.process_time()
    assert told(folder, "-", stdin=text)["decisions"] == 10_000
    assert time.process_time() - started < 1
