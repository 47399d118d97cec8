"""The mapping file says who may call an operation, and never lets in more callers than the description does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.openapi_map import OpenapiMap, read
from extauthz.core.routes import Match, Route
from extauthz.errors import ConfigurationError
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import MAX_ALTERNATIVES, Access, Accesses, of_route
from extauthz.tools.openapi_servers import ApiServer

VOCABULARY = ("SEARCH", "CHAT", "ADMIN", "items:read")


def operation(security: str | None = "", **rest: Any) -> DescribedOperation:
    """Describe an operation; "a b, c" is security that asks for a and b, or for c; None asks for nothing."""
    sets = tuple(tuple(names.split()) for names in (security or "").split(",") if names.strip())
    fields = {"is_open": security is None or "nothing" in security.split(",")} | rest
    sets = tuple(names for names in sets if names != ("nothing",))
    return DescribedOperation("GET", "/items/{id}", (ApiServer("", ""),), security=sets, **fields)


def words(rules: list[dict[str, Any]], described: DescribedOperation, vocabulary: tuple[str, ...] = VOCABULARY) -> str:
    mapping = OpenapiMap.model_validate({"rules": rules}, context=vocabulary)
    return Accesses(mapping, vocabulary).of(described).words


READ, WRITE = {"security": "read", "scope": "SEARCH"}, {"security": "write", "scope": "CHAT"}
EITHER = {"security": "either", "any_of": ["SEARCH", "CHAT"]}

SECURITY: dict[str, tuple[list[dict[str, Any]], str | None, str]] = {
    "one scope": ([READ], "read", "scope SEARCH"),
    "together": ([READ, WRITE], "read write", "all_of CHAT SEARCH"),
    "one of two": ([READ, WRITE], "read,write", "any_of CHAT SEARCH"),
    "one of them not mapped": ([READ], "read write", "deny"),
    "an alternative not mapped": ([READ], "read,key", "scope SEARCH"),
    "none mapped": ([READ], "key", "deny"),
    "nothing mapped to nothing": ([], "", "deny"),
    "a set in the other": ([READ, WRITE], "read,read write", "scope SEARCH"),
    "sets that no route can say": (
        [READ, WRITE, {"security": "all", "scope": "ADMIN"}],
        "read write,all",
        "all_of ADMIN CHAT SEARCH",
    ),
    "any of": ([EITHER], "either", "any_of CHAT SEARCH"),
    "any of and one of them": ([EITHER, READ], "either read", "scope SEARCH"),
    "by name of the vocabulary": ([], "search", "scope SEARCH"),
    "by name, exactly": ([], "items:read", "scope items:read"),
    "by a name of another case": ([], "ITEMS:READ", "deny"),
    "a rule comes before the name": ([{"security": "SEARCH", "scope": "ADMIN"}], "SEARCH", "scope ADMIN"),
    "the first rule counts": ([READ, {"security": "*", "scope": "ADMIN"}], "read,other", "any_of ADMIN SEARCH"),
    "denied": ([{"security": "read", "deny": True}, {"security": "*", "scope": "CHAT"}], "read", "deny"),
    "denied, and another": ([{"security": "read", "deny": True}, WRITE], "read,write", "scope CHAT"),
    "asks for nothing": ([READ], None, "deny"),
    "asks for nothing, or for a scope": ([READ], "read,nothing", "scope SEARCH"),
    "anonymous": ([READ | {"anonymous": True}], "read,nothing", "anonymous scope SEARCH"),
    "not anonymous where security is demanded": ([READ | {"anonymous": True}], "read", "scope SEARCH"),
    "a narrower rule": ([READ | {"path": "/other"}, {"security": "read", "scope": "ADMIN"}], "read", "scope ADMIN"),
}


@pytest.mark.parametrize("name", SECURITY)
def test_security_is_mapped_as_a_whole(name: str) -> None:
    rules, security, expected = SECURITY[name]
    assert words(rules, operation(security)) == expected


CHATS = {"tag": "Chat", "scope": "CHAT"}
OTHER: dict[str, tuple[list[dict[str, Any]], DescribedOperation, str]] = {
    "tag": ([CHATS], operation("key", tags=("Chat",)), "scope CHAT"),
    "tag with a star": ([{"tag": "C*", "scope": "CHAT"}], operation("key", tags=("Chat",)), "scope CHAT"),
    "another tag": ([CHATS], operation("key", tags=("Chats",)), "deny"),
    "the first rule": ([CHATS, {"tag": "Chat", "scope": "ADMIN"}], operation("key", tags=("Chat",)), "scope CHAT"),
    "operation": ([{"operationId": "get*", "scope": "CHAT"}], operation("key", operation_id="getX"), "scope CHAT"),
    "no operation": ([{"operationId": "g*", "scope": "CHAT"}], operation("key"), "deny"),
    "path": ([{"path": "/items/*", "scope": "CHAT"}], operation("key"), "scope CHAT"),
    "path of one segment": ([{"path": "/*", "scope": "CHAT"}], operation("key"), "deny"),
    "path of all": ([{"path": "/**", "scope": "CHAT"}], operation("key"), "scope CHAT"),
    "method": ([{"method": "PUT", "scope": "CHAT"}, {"method": "GET", "scope": "ADMIN"}], operation("key"), "scope ADMIN"),
    "both conditions": ([CHATS | {"method": "PUT"}], operation("key", tags=("Chat",)), "deny"),
    "deny comes first": ([{"path": "/**", "deny": True}, CHATS], operation("key", tags=("Chat",)), "deny"),
    "public": ([{"path": "/**", "public": True}], operation(None), "public"),
    "public or a key": ([{"path": "/**", "public": True}], operation("key,nothing"), "public"),
    "not public where security is demanded": ([{"path": "/**", "public": True}], operation("key"), "deny"),
    "a scope where nothing is demanded": ([CHATS], operation(None, tags=("Chat",)), "scope CHAT"),
    "anonymous": ([CHATS | {"anonymous": True}], operation(None, tags=("Chat",)), "anonymous scope CHAT"),
    "not anonymous": ([CHATS | {"anonymous": True}], operation("key", tags=("Chat",)), "scope CHAT"),
    "besides what security comes to": ([CHATS, READ], operation("read", tags=("Chat",)), "all_of CHAT SEARCH"),
    "security comes first": ([READ, CHATS], operation("read", tags=("Chat",)), "scope SEARCH"),
    "as far as it is mapped": ([CHATS, READ], operation("read key", tags=("Chat",)), "all_of CHAT SEARCH"),
    "an alternative of which nothing is known": ([CHATS, READ], operation("read,key", tags=("Chat",)), "scope CHAT"),
    "denied security": ([CHATS, {"security": "read", "deny": True}], operation("read", tags=("Chat",)), "deny"),
    "extension": ([{"extension": "x-scope"}], operation("key", extensions={"x-scope": "chat"}), "scope CHAT"),
    "extension with several": (
        [{"extension": "x-scope"}],
        operation("key", extensions={"x-scope": ["CHAT", "ADMIN"]}),
        "all_of ADMIN CHAT",
    ),
    "extension with no scope": ([{"extension": "x-scope"}], operation("key", extensions={"x-scope": "NONE"}), "deny"),
    "extension with one that is none": ([{"extension": "x-scope"}], operation("key", extensions={"x-scope": ["CHAT", 1]}), "deny"),
    "extension that is a mapping": ([{"extension": "x-scope"}], operation("key", extensions={"x-scope": {"a": 1}}), "deny"),
    "extension that is false": ([{"extension": "x-open", "public": True}], operation(None, extensions={"x-open": False}), "deny"),
    "extension that is true": ([{"extension": "x-open", "public": True}], operation(None, extensions={"x-open": True}), "public"),
    "extension with a value": (
        [{"extension": "x-a", "value": 1, "scope": "CHAT"}],
        operation("k", extensions={"x-a": 1}),
        "scope CHAT",
    ),
    "another value": ([{"extension": "x-a", "value": 1, "scope": "CHAT"}], operation("k", extensions={"x-a": True}), "deny"),
}


@pytest.mark.parametrize("name", OTHER)
def test_the_first_rule_that_fits_counts_and_security_besides(name: str) -> None:
    rules, described, expected = OTHER[name]
    assert words(rules, described) == expected


def test_without_a_vocabulary_no_name_stands_for_itself() -> None:
    assert words([], operation("SEARCH"), ()) == "deny"
    assert words([{"extension": "x-scope"}], operation("k", extensions={"x-scope": "ANY"}), ()) == "scope ANY"


def test_a_denial_says_what_to_add() -> None:
    def why(described: DescribedOperation, *rules: dict[str, Any]) -> str:
        return Accesses(OpenapiMap.model_validate({"rules": list(rules)}, context=VOCABULARY), VOCABULARY).of(described).why

    assert why(operation("read", tags=("Chat",))) == (
        "no rule for security read, tag Chat: add one to the mapping file, or write a scope here"
    )
    assert why(operation(None)) == "the description asks for no security: add a rule that says public or a scope, or write it here"
    assert why(operation("key"), {"path": "/**", "public": True}) == (
        "rule 1, path /** says public, and the description demands security: write public here if that is meant"
    )
    assert why(operation("read"), {"security": "read", "deny": True}) == "the mapping file denies its security"


SETS = st.frozensets(st.frozensets(st.sampled_from("ABCDEF"), min_size=1, max_size=3), max_size=4)


@given(SETS, SETS, st.frozensets(st.sampled_from("ABCDEF")))
def test_what_is_written_lets_nobody_in_that_both_do_not(one: Any, other: Any, held: frozenset[str]) -> None:
    both = Access(one).both(Access(other))
    passes = any(names <= held for names in one) and any(names <= held for names in other)
    assert any(names <= held for names in both.alternatives) == passes
    keys = both.written()
    names = keys.get("all_of") or keys.get("any_of") or ([keys["scope"]] if "scope" in keys else [])
    route = Route("r", Match("GET /", ("GET",), ("",), rest=False), tuple(names), any_scope="any_of" in keys, deny="deny" in keys)  # type: ignore[arg-type]
    assert passes or not route.permits(held)  # why: what no route can say becomes something stricter
    assert of_route(route).words == both.words


def test_many_alternatives_become_one() -> None:
    one = Access(frozenset(frozenset({f"a{number}"}) for number in range(10)))
    both = one.both(Access(frozenset(frozenset({f"b{number}"}) for number in range(10))))
    assert len(both.alternatives) == 1 < MAX_ALTERNATIVES
    assert both.written()["all_of"] == sorted(f"{letter}{number}" for letter in "ab" for number in range(10))


# --- the mapping file

MAPS = {
    "rules: [{tag: a}]": "m.yaml:1: rules[0]: write exactly one of scope, all_of, any_of, public, deny; here is none of them",
    "rules: [{tag: a, scope: CHAT, deny: true}]": "scope, all_of, any_of, public, deny; here is scope and deny",
    "rules: [{scope: CHAT}]": "applies to nothing: write one of security, tag, extension, operationId, path, method",
    "rules: [{tag: a, scope: CHATT}]": "m.yaml:1: rules[0].scope: unknown scope 'CHATT', did you mean 'CHAT'?",
    "rules: [{tag: a, any_of: [CHAT, X]}]": "m.yaml:1: rules[0].any_of[1]: unknown scope 'X': name one of `scopes` in",
    "rules: [{tga: a, scope: CHAT}]": "m.yaml:1: rules[0].tga: unknown key, did you mean 'tag'?",
    "rules: [{tag: a, value: 1, scope: CHAT}]": "value is that of an extension: write extension too, or leave value out",
    "rules: [{security: a, public: true}]": "what demands security is not public: leave security or public out",
    "rules: [{security: a, extension: x-a}]": "either security or the extension says which scopes are needed",
    "rules: [{tag: a, deny: true, anonymous: true}]": "deny needs no token: leave anonymous out",
    "rules: [{tag: a, public: false}]": "m.yaml:1: rules[0].public: write true, or leave the key out",
    "rules: [{extension: scope}]": "m.yaml:1: rules[0].extension: ",
    "wildcards: all": "m.yaml:1: wildcards: write 'segment' or 'rest', not 'all'",
    "accepted: [{what: a}]": 'm.yaml:1: accepted[0].why: is missing: write it, like why: "the probe of the load balancer"',
    "[]": "m.yaml:1: write a mapping, like rules: [{tag: Search, scope: SEARCH}]",
    "rules: [": "m.yaml:2: not YAML",
}


@pytest.mark.parametrize("text", MAPS)
def test_what_is_wrong_with_a_mapping_file_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path / "m.yaml", VOCABULARY)
    (problem,) = caught.value.problems
    assert MAPS[text] in str(problem)


def test_a_mapping_file_that_is_right_is_read(tmp_path: Path) -> None:
    data = {
        "rules": [READ, {"extension": "x-scope"}],
        "mixed_segments": "parameter",
        "wildcards": "rest",
        "accepted": [{"what": "GET /", "why": "w"}],
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(data))
    assert read(tmp_path / "m.yaml", VOCABULARY).model_dump(exclude_none=True) == data


class Unwritable(dict[str, object]):
    """Stands for aliases of aliases, which nobody may write out."""

    def __repr__(self) -> str:
        raise AssertionError("written out")


@pytest.mark.parametrize(
    "value", [Unwritable(a=1), [Unwritable(a=1)], ["CHAT"] * 201], ids=["a mapping", "a list of mappings", "a list without end"]
)
def test_an_extension_is_never_written_out(value: object) -> None:
    assert words([{"extension": "x-scope"}], operation("key", extensions={"x-scope": value})) == "deny"
    assert words([{"extension": "x-scope"}], operation("key", extensions={"x-scope": ["CHAT"] * 200})) == "scope CHAT"
