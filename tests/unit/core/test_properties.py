"""Laws that hold for every input, each compared with a second reading of the rules that is written here from the specification."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import string
import urllib.parse
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.config.patterns import parse_match
from extauthz.core.act_as import address
from extauthz.core.decide import plan
from extauthz.core.identity import encoded
from extauthz.core.model import AuthType, Deny, Reason, Request
from extauthz.core.paths import Path, parse
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.core.tokens import ENTROPY_BYTES, TokenText, mint
from extauthz.core.tokens import parse as parse_token
from extauthz.service import Authorizer
from tests.support import fuzz
from tests.support.world import (
    DECISION_ID,
    ListRecorder,
    World,
    base64url,
    bearer,
    check_request,
    claims,
    oauth,
    sign,
)

few = settings(max_examples=150, deadline=None)
many = settings(max_examples=300, deadline=None)

# --- paths


def read_path(target: str) -> list[str] | str:
    """Read a path by the letter of the decisions, one rule after the other."""
    raw = target.split("?")[0]
    hex_pair = re.compile("%[0-9a-fA-F]{2}")
    rest = hex_pair.sub("", raw)
    if not raw.startswith("/") or "#" in target or len(raw) > 8192 or raw.count("/") > 128:
        return "path_malformed"
    if any(character not in fuzz.PCHAR + "/" for character in rest):
        return "path_malformed"
    written = raw.split("/")[1:]
    decoded = []
    for number, segment in enumerate(written, start=1):
        if not segment and number < len(written):
            return "path_ambiguous"
        try:
            text = urllib.parse.unquote(segment, errors="strict")
        except UnicodeDecodeError:
            return "path_ambiguous"
        controls = any(ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in text)
        if text in (".", "..") or any(one in text for one in "/\\;") or controls or hex_pair.search(text):
            return "path_ambiguous"
        decoded.append(text)
    return decoded


def path_of(target: str) -> Path | str:
    """Read a whole `:path`, with its query, as the decision does."""
    decision = plan(Policy(), Request("GET", target, "api.acme.com", {}, raw=True, decision_id="0" * 32))
    assert isinstance(decision, Deny), "a policy without routes knows no path"
    if decision.reason is not Reason.ROUTE_UNKNOWN:
        return decision.reason.value
    path = parse(target.partition("?")[0])
    assert isinstance(path, Path)
    return path


@many
@given(fuzz.targets())
@example("/a//b")
@example("/" + "a/" * 128)
@example("/" + "a" * 8192)
@example("/%C3%A9/100%25/+/%2B?x=%")
def test_a_path_is_read_by_the_letter(target: str) -> None:
    path = path_of(target)
    expected = read_path(target)

    event("accepted" if isinstance(path, Path) else path)
    assert (list(path.segments) if isinstance(path, Path) else path) == expected


LIMITS = ["/" + "a" * 8191, "/" + "a" * 8192, "/a" * 128, "/a" * 129, "/a" * 127 + "/", "/a" * 128 + "/", "/?" + "a" * 9000]


@pytest.mark.parametrize("form", ["{}", "/{}", "/a{}", "/{}b", "/a/{}/b", "/{}/", "/{}?x=/../", "/a?{}"])
def test_every_piece_in_every_place_is_read_by_the_letter(form: str) -> None:
    for target in (*map(form.format, (*fuzz.HOSTILE, *fuzz.ORDINARY, *map(chr, range(256)))), *LIMITS):
        path = path_of(target)
        assert (list(path.segments) if isinstance(path, Path) else path) == read_path(target), target


@many
@given(fuzz.targets())
@example("/%e9%a9%ac/a%20b/%23%3f/[x]")
@example("/%E2%80%A6/~/!$&'()*+,=:@/")
def test_the_canonical_path_is_canonical(target: str) -> None:
    path = path_of(target)
    if not isinstance(path, Path):
        return
    again = path_of(path.canonical)

    assert isinstance(again, Path)
    assert (again.segments, again.text, again.canonical) == (path.segments, path.text, path.canonical)
    assert re.fullmatch(r"(/([A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-F]{2})*)+", path.canonical)


good_segments = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\;"), min_size=1, max_size=6).filter(
    lambda text: text not in (".", "..") and not re.search("%[0-9A-Fa-f]{2}", text)
)


@few
@given(st.data(), st.lists(good_segments, min_size=1, max_size=4))
def test_every_spelling_of_a_path_is_the_same_path(data: st.DataObject, segments: list[str]) -> None:
    path = path_of(data.draw(fuzz.spellings(segments)))

    assert isinstance(path, Path)
    assert list(path.segments) == segments


# --- routes

PIECES = ("a", "b", "{x}", "{y}")


@st.composite
def route_maps(draw: st.DrawFn) -> list[Route]:
    """Small route maps over so few names that patterns overlap; no two routes share a pattern and a method."""
    routes: list[Route] = []
    taken: set[tuple[object, ...]] = set()
    for number in range(draw(st.integers(1, 8))):
        pieces = draw(st.lists(st.sampled_from(PIECES), max_size=3))
        pieces += draw(st.sampled_from(([], [""], ["**"])))
        pattern = "/" + "/".join(pieces)
        shape = re.sub(r"\{.\}", "{}", pattern)
        methods = draw(st.sampled_from(("*", "GET", "POST", "GET|HEAD", "PURGE")))
        keys = {(shape, method) for method in methods.split("|")}
        if keys & taken:
            continue
        taken |= keys
        deny = draw(st.booleans())
        routes.append(Route(f"route {number}", parse_match(f"{methods} {pattern}"), ("S",), deny=deny))
    return routes


def pieces_of(route: Route) -> list[str]:
    return route.match.text.partition(" ")[2][1:].split("/")


def matches(pieces: list[str], segments: list[str]) -> bool:
    """Tell whether a pattern matches: `{name}` one non-empty segment, a last `**` zero or more."""
    if pieces[-1] == "**":
        pieces = pieces[:-1]
        if len(segments) < len(pieces):
            return False
        segments = segments[: len(pieces)]
    return len(pieces) == len(segments) and all(
        (bool(segment) if piece.startswith("{") else piece == segment) for piece, segment in zip(pieces, segments, strict=True)
    )


def specificity(pieces: list[str]) -> list[int]:
    return [2 if piece == "**" else 1 if piece.startswith("{") else 0 for piece in pieces]


def best(routes: Iterable[Route], segments: list[str]) -> list[int] | None:
    ranked = [specificity(pieces_of(route)) for route in routes if matches(pieces_of(route), segments)]
    return min(ranked, default=None)


def find_slowly(routes: list[Route], method: str, segments: list[str]) -> str:
    """Look at every route, compare them all, then ask for the method: the rules of the decisions, without a trie."""
    winner = best(routes, segments)
    if winner is None:
        return "route_unknown"
    if segments[-1] == "" and len(segments) > 1 and winner[-1:] == [2]:
        without_slash = best(routes, segments[:-1])
        if without_slash is not None and without_slash < winner:
            return "route_unknown"
    same = [route for route in routes if matches(pieces_of(route), segments) and specificity(pieces_of(route)) == winner]
    # Literals that match one path and have one specificity stand in the same places: it is one pattern.
    for route in same:
        if method in route.match.methods and method != "*":
            return route.name
    for route in same:
        if route.match.methods == ("*",) and (route.deny or method in fuzz.METHODS):
            return route.name
    return "method_not_allowed"


@settings(max_examples=300, deadline=None)
@given(
    route_maps(),
    st.lists(
        st.tuples(
            st.sampled_from(("GET", "HEAD", "POST", "DELETE", "PURGE", "get", "OPTIONS", "*")),
            st.lists(st.sampled_from(("a", "b", "c", "**", "{x}")), max_size=4),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_the_trie_finds_what_a_look_at_every_route_finds(routes: list[Route], requests: list[tuple[str, list[str], bool]]) -> None:
    table = compile_routes(routes)
    for method, names, slash in requests:
        segments = [*names, ""] if slash or not names else names
        path = path_of("/" + "/".join(urllib.parse.quote(segment) for segment in segments))
        assert isinstance(path, Path)
        found = table.find(method, path)
        expected = find_slowly(routes, method, segments)

        event("found" if isinstance(found, Route) else found.value)
        assert (found.name if isinstance(found, Route) else found.value) == expected, (method, segments)


SCOPES = ("A", "B", "C", "D")


@few
@given(st.sets(st.sampled_from(SCOPES)), st.lists(st.sampled_from(SCOPES), min_size=1, max_size=4), st.booleans())
def test_scopes_are_all_held_or_any(held: set[str], wanted: list[str], any_scope: bool) -> None:
    route = Route("r", parse_match("GET /"), tuple(wanted), any_scope=any_scope)
    counted = sum(1 for scope in wanted if scope in held)

    assert route.permits(frozenset(held)) == (counted > 0 if any_scope else counted == len(wanted))


@few
@given(st.data(), st.lists(st.sampled_from(("a=1", "tokens=x", "access%20token=x", "%6D")), max_size=2))
def test_every_spelling_of_a_token_in_the_query_is_refused(data: st.DataObject, others: list[str]) -> None:
    policy = Policy(compile_routes([Route("r", parse_match("GET /a"), ("S",))]))
    name = "".join(data.draw(st.sampled_from((one, f"%{ord(one):02x}", f"%{ord(one):02X}"))) for one in "access_token")
    for query, reason in (("&".join([*others, f"{name}=x"]), "token_in_query"), ("&".join(others), "credential_missing")):
        decision = plan(policy, Request("GET", f"/a?{query}", "api.acme.com", {}, raw=True, decision_id="0" * 32))
        assert isinstance(decision, Deny)
        assert decision.reason == reason, query


# --- worlds that live as long as this module

ROUTES = [
    {"match": "POST /search", "scope": "SEARCH", "anonymous": True},
    {"match": "GET /open", "public": True},
    {"match": "GET /items/{id}", "scope": "SEARCH", "name": "items"},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), ROUTES)


# --- issued tokens

prefixes = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True)


@few
@given(st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES), prefixes, prefixes)
def test_a_minted_token_reads_back(entropy: bytes, prefix: str, other: str) -> None:
    token = mint(prefix, entropy)
    other += "x" if other == prefix else ""

    assert re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{12}}_[0-9A-Za-z]{{49}}", token.text)
    assert parse_token(token.text, frozenset({prefix, other})) == TokenText(token.text.split("_")[1], token.text)
    assert parse_token(token.text, frozenset({other})) is Reason.TOKEN_MALFORMED
    assert token.text not in repr(token)


@few
@given(st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES), st.integers(0, ENTROPY_BYTES * 8 - 1))
def test_every_bit_of_entropy_counts(entropy: bytes, bit: int) -> None:
    """16 bytes make an id of 12 characters, 71 bits: only what is lost there may be equal."""
    other = (int.from_bytes(entropy) ^ 1 << bit).to_bytes(ENTROPY_BYTES)
    one, two = mint("glean", entropy), mint("glean", other)
    in_secret = bit < 32 * 8

    assert one.text != two.text
    assert (one.id == two.id) == in_secret


@many
@given(data=st.data())
def test_no_changed_token_is_accepted(world: World, data: st.DataObject) -> None:
    """The checksum finds every change of one character or two neighbours: the store is not asked."""
    token = fuzz.put_token(world)
    assert world.check("POST /search", bearer(token)).reason == "allowed"
    other = data.draw(fuzz.changed(token, string.printable.strip() + " \t"))
    assume(other.strip(" \t") != token)
    answer = world.check("POST /search", bearer(other))

    event(answer.reason)
    refusals = {"authorization_malformed": 400, "token_malformed": 401, "token_checksum": 401}
    assert refusals.get(answer.reason) == answer.status


def checksum(body: str) -> str:
    """CRC32 in six base62 digits, the most significant first."""
    alphabet, number, digits = string.digits + string.ascii_uppercase + string.ascii_lowercase, zlib.crc32(body.encode()), ""
    while len(digits) < 6:
        number, digit = divmod(number, 62)
        digits = alphabet[digit] + digits
    return digits


@few
@given(data=st.data())
def test_no_changed_token_with_the_right_checksum_is_accepted(world: World, data: st.DataObject) -> None:
    token = fuzz.put_token(world)
    body = token[:-6]
    assert checksum(body) == token[-6:]
    other = data.draw(fuzz.changed(body, string.ascii_letters + string.digits + "_"))
    assume(other != body)
    answer = world.check("POST /search", bearer(other + checksum(other)))

    event(answer.reason)
    assert answer.reason in {"token_malformed", "token_secret_wrong", "token_unknown"}  # why: what is changed is drawn


# --- JWT

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order n of P-256. (r, n - s) verifies wherever (r, s) does: ECDSA's own property, the one exception below."""


def twin(signature: bytes) -> bytes:
    """Return the second signature of ES256 that verifies too."""
    r, s = signature[:32], int.from_bytes(signature[32:])
    return r + (ORDER - s).to_bytes(32)


def is_twin(original: str, other: str) -> bool:
    """Tell whether a token is the original with exactly the second signature of ES256."""
    head, _, tail = original.rpartition(".")
    return other == f"{head}.{base64url(twin(base64.urlsafe_b64decode(tail + '==')))}"


JWT = {algorithm: sign(claims(), algorithm=algorithm) for algorithm in ("RS256", "ES256")}
algorithms = st.sampled_from(sorted(JWT))
JWT_CHARACTERS = string.ascii_letters + string.digits + "-_.=+/~"


def never_accepted(world: World, token: str) -> None:
    answer = world.check("POST /search", oauth(token))

    assert not answer.allowed
    if answer.reason != "key_set_unavailable":  # a `kid` that the key set lacks, while the set may be older than the key
        assert answer.status in (400, 401)  # why: what is changed is drawn, and some of it makes no Bearer token at all


@pytest.mark.parametrize("algorithm", sorted(JWT))
def test_the_unchanged_jwt_is_accepted(world: World, algorithm: str) -> None:
    assert world.check("POST /search", oauth(JWT[algorithm])).reason == "allowed"


@many
@given(data=st.data(), algorithm=algorithms)
def test_no_jwt_with_a_changed_character_is_accepted(world: World, data: st.DataObject, algorithm: str) -> None:
    other = data.draw(fuzz.changed(JWT[algorithm], JWT_CHARACTERS))
    assume(other != JWT[algorithm])
    never_accepted(world, other)


def test_the_last_character_of_each_part_has_one_spelling(world: World) -> None:
    """Unpadded base64url leaves unused bits in the last character: a part that does not re-encode to itself is refused."""
    for token in JWT.values():
        head, payload, tail = token.split(".")
        others = {
            text
            for last in JWT_CHARACTERS
            for text in (
                f"{head[:-1]}{last}.{payload}.{tail}",
                f"{head}.{payload[:-1]}{last}.{tail}",
                f"{head}.{payload}.{tail[:-1]}{last}",
            )
        } - {token}
        assert len(others) == 3 * len(JWT_CHARACTERS) - 3
        for other in others:
            never_accepted(world, other)


@few
@given(data=st.data(), algorithm=algorithms)
def test_no_rearranged_jwt_is_accepted(world: World, data: st.DataObject, algorithm: str) -> None:
    """Parts swapped, dropped, doubled, padded, taken from the token of the other algorithm, or wrapped in white space."""
    mine, theirs = JWT[algorithm].split("."), JWT["RS256" if algorithm == "ES256" else "ES256"].split(".")
    padded = [part + "=" * (-len(part) % 4) for part in mine]
    standard = [part.translate(str.maketrans("-_", "+/")) for part in mine]
    pool = st.sampled_from([*mine, *theirs, *padded, *standard, "", "e30", mine[0] + "\n"])
    parts = data.draw(st.one_of(st.permutations(mine), st.lists(pool, min_size=1, max_size=5)))
    other = ".".join(parts)
    assume(other != JWT[algorithm] and other not in JWT.values())
    never_accepted(world, other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@few
@given(data=st.data(), algorithm=algorithms, part=st.integers(0, 1))
def test_no_jwt_with_other_claims_or_another_header_is_accepted(
    world: World, data: st.DataObject, algorithm: str, part: int
) -> None:
    parts = JWT[algorithm].split(".")
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    name = data.draw(st.sampled_from([*content, "crit", "jku", "jwk", "x5u", "b64", "zip", "nbf", "new"]))
    way = data.draw(st.sampled_from(("set", "delete", "spaces")))
    if way == "delete" and name in content:
        del content[name]
    elif way == "set":
        content[name] = data.draw(st.one_of(json_values, st.sampled_from(["none", "None", "HS256", "RS256", "ES256", "PS256"])))
    separators = (", ", ":") if way == "spaces" else None
    parts[part] = base64url(json.dumps(content, separators=separators).encode())
    assume(".".join(parts) != JWT[algorithm])
    never_accepted(world, ".".join(parts))


@few
@given(data=st.data(), algorithm=algorithms)
def test_no_other_signature_is_accepted(world: World, data: st.DataObject, algorithm: str) -> None:
    head, _, tail = JWT[algorithm].rpartition(".")
    signature = base64.urlsafe_b64decode(tail + "==")
    number = int.from_bytes(signature)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
    forged = [
        *(b"", b"\x00", signature[:-1], signature + b"\x00", b"\x00" + signature, bytes(len(signature)), signature * 2),
        *(encode_dss_signature(r, s), r.to_bytes(32) + bytes(32), bytes(32) + s.to_bytes(32), s.to_bytes(32) + r.to_bytes(32)),
        (number ^ 1 << data.draw(st.integers(0, len(signature) * 8 - 1))).to_bytes(len(signature)),
        data.draw(st.binary(max_size=300)),
    ]
    if algorithm == "ES256":
        forged += [(ORDER - r).to_bytes(32) + s.to_bytes(32), (r ^ 1).to_bytes(32) + (ORDER - s).to_bytes(32)]
        assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    tokens = {f"{head}.{base64url(other)}" for other in forged} - {JWT[algorithm]}
    others = [token for token in tokens if algorithm != "ES256" or not is_twin(JWT[algorithm], token)]
    assert len(others) >= 9
    for token in others:
        never_accepted(world, token)


# --- addresses and header values


def is_address(text: str) -> bool:
    """The grammar of the decisions: local@domain, character by character."""
    local, at, domain = text.partition("@")
    atoms = local.split(".")
    labels = domain.split(".")
    letters = string.ascii_letters + string.digits
    return (
        at == "@"
        and len(text) <= 254
        and 1 <= len(local) <= 64
        and all(atom and all(one in letters + "!#$&'*+/=?^_{}~-" for one in atom) for atom in atoms)
        and len(labels) >= 2
        and all(1 <= len(label) <= 63 and all(one in letters + "-" for one in label) for label in labels)
        and all(label[0] != "-" and label[-1] != "-" for label in labels)
    )


ADDRESS_CHARACTERS = string.ascii_letters + string.digits + ".!#$&'*+/=?^_{}~-@ %,\"\\()<>`|\n\t\x00\x7f\xe9\u0131\u212aΩ"
addresses = st.one_of(
    st.text(ADDRESS_CHARACTERS, max_size=20),
    st.builds("{}@{}".format, st.text(ADDRESS_CHARACTERS[:88], min_size=1, max_size=66), st.text("aZ9-.", min_size=1, max_size=70)),
    st.builds(
        "{}@{}.{}".format,
        st.text(ADDRESS_CHARACTERS[:62] + "+-_", min_size=60, max_size=66),
        st.text("aB0", min_size=1, max_size=64),
        st.lists(st.text("aB0", min_size=50, max_size=63), min_size=1, max_size=4).map(".".join),
    ),
    st.just("Ana.Lee+x@Acme.com").flatmap(lambda good: fuzz.changed(good, ADDRESS_CHARACTERS)),
)


@settings(max_examples=600, deadline=None)
@given(addresses, st.booleans())
@example("a@b.c", True)
@example(f"a@{'b' * 63}.c", True)
@example(f"a@{'b' * 64}.c", True)
@example(f"{'a' * 64}@b.c", True)
@example(f"{'a' * 65}@b.c", True)
@example(f"{'a' * 50}@{'.'.join(['b' * 50] * 4)}", True)
@example(f"{'a' * 51}@{'.'.join(['b' * 50] * 4)}", True)
@example("a@b.c\n", True)
@example("!@b.c", False)
@example("\u212aana@acme.com", True)
def test_an_address_is_an_address(text: str, raw: bool) -> None:
    found = address(text, raw=raw)
    good = is_address(text) and (raw or "!" not in text)

    event("address" if good else "other")
    assert (found is not None) == good
    if found is not None:
        assert found.isascii()
        assert found == found.lower()
        assert is_address(found)
        assert found.upper() == text.upper()


@many
@given(st.one_of(st.text(), st.text(st.characters(max_codepoint=0x7F))))
@example("100%25 \t\r\n\x00\x7f\xe9")
def test_an_encoded_value_is_plain_and_reads_back(text: str) -> None:
    value = encoded(text)

    assert all(0x21 <= ord(character) <= 0x7E for character in value)
    assert urllib.parse.unquote(value, errors="strict") == text
    assert "%" not in re.sub("%[0-9A-F]{2}", "", value)


# --- header edits

CREDENTIAL_NAMES = ("authorization", "x-glean-auth-type", "x-scio-actas", "x-glean-actas")
OVERRIDES = (
    *("x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"),
    *("script-name", "x-script-name", "path-info"),
)
FIELDS = ("user", "actor", "auth-type", "scopes", "client-id", "decision-id", "token")
EXTRA_ACT_AS = "on-behalf-of"

KEEPS: tuple[tuple[str, ...], ...] = (
    (),
    ("authorization",),
    ("x-glean-auth-type", "x-original-url"),
    ("x-scio-actas",),
    ("X-Glean-ActAs", "authorization", "x-http-method"),
    (*CREDENTIAL_NAMES, *OVERRIDES),
)


@pytest.fixture(scope="module")
def editors(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], World]:
    """One world per prefix and list of kept headers; with the prefix of its own, one more act-as header is configured."""
    found = {}
    for prefix, headers in (("x-extauthz-", []), ("x-acme-id-", [EXTRA_ACT_AS])):
        for number, keep in enumerate(KEEPS):
            changes = {"identity": {"prefix": prefix, "keep": list(keep)}, "act_as": {"headers": headers}}
            found[prefix, number] = World(tmp_path_factory.mktemp("editor"), ROUTES, changes)
    return found


def folded(name: str) -> str:
    """How CGI, WSGI and their kin read a header name: every character that is no letter or digit is the same."""
    return re.sub("[^a-z0-9]", "-", name.lower())


def genuine(world: World, kind: str) -> tuple[str, dict[str, str | bytes]]:
    """Return a request line and the credential of each kind of allow."""
    match kind:
        case "PUBLIC":
            return "GET /open", {}
        case "OAUTH":
            return "POST /search", oauth(JWT["ES256"])
        case "GLOBAL":
            return "POST /search", bearer(fuzz.put_token(world, "GLOBAL"), x_glean_actas="Ana@Acme.com")
    return "POST /search", bearer(fuzz.put_token(world, kind))


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    prefix=st.sampled_from(("x-extauthz-", "x-acme-id-")),
    keep_number=st.integers(0, len(KEEPS) - 1),
    kind=st.sampled_from(("PUBLIC", "OAUTH", "GLOBAL", "USER", "ANONYMOUS")),
    form=st.sampled_from(("raw", "map")),
)
def test_no_name_that_an_upstream_could_take_for_ours_survives(
    editors: dict[tuple[str, int], World], data: st.DataObject, prefix: str, keep_number: int, kind: str, form: str
) -> None:
    world = editors[prefix, keep_number]
    act_as = ("x-scio-actas", "x-glean-actas", *([EXTRA_ACT_AS] if prefix == "x-acme-id-" else []))
    exact = ("authorization", "x-glean-auth-type", *act_as)
    ours = tuple(prefix + field for field in FIELDS)
    names = data.draw(st.lists(fuzz.header_names(*ours, *exact, *OVERRIDES), max_size=8))
    line, credential = genuine(world, kind)
    if kind != "PUBLIC":
        names = [name for name in names if name.lower() not in exact]
    sent = {**dict.fromkeys(names, "forged"), **credential}
    answer = world.check(line, sent, form=form)

    assert answer.reason == ("public" if kind == "PUBLIC" else "allowed")
    kept = {name.lower() for name in KEEPS[keep_number]}
    stays = kept - set(act_as)
    assert not set(answer.headers) & set(answer.removed), "Envoy removes what is in both lists"
    assert len(answer.removed) == len(set(answer.removed))
    for name in {name.lower() for name in sent}:
        touched = name in answer.headers or name in answer.removed
        dangerous = folded(name).startswith(prefix) or folded(name) in (*exact, *OVERRIDES)
        event("dangerous" if dangerous else "harmless")
        assert touched == (dangerous and name not in stays), name

    # Whatever the client sent: all of ours are set or removed, and the credential goes.
    assert set(ours) | set(exact) <= set(answer.headers) | set(answer.removed) | stays
    assert set(answer.headers) <= set(ours) | (set(act_as) & kept)
    for name in set(act_as) & set(answer.headers):
        assert (kind, answer.headers[name]) == ("GLOBAL", "ana@acme.com")
    assert "forged" not in answer.headers.values()
    assert answer.headers[prefix + "decision-id"] == DECISION_ID
    assert answer.headers.get(prefix + "auth-type") == (None if kind == "PUBLIC" else AuthType(kind).value)
    assert answer.headers.get(prefix + "user") == (None if kind in ("PUBLIC", "ANONYMOUS") else "ana@acme.com")


# --- memory


def authorizer_of(world: World, serial: list[int]) -> Authorizer:
    """Return an authorizer with nothing in memory, whose decisions are numbered."""

    def decision_id() -> str:
        serial[0] += 1
        return f"{serial[0]:032x}"

    return Authorizer(fuzz.fresh_runtime(world), ListRecorder(), clock=world.clock, decision_ids=decision_id)


@pytest.fixture(scope="module")
def families(world: World) -> list[list[bytes]]:
    """Requests that have much in common: each family has one credential, user and set of header names, and every route."""
    users = [{}, {"x-scio-actas": "ana@acme.com"}, {"x-scio-actas": "bo@acme.com"}]
    odd: list[dict[str, str]] = [
        {},
        {"x_extauthz_user": "eve"},
        {f"x-extauthz-{DECISION_ID}": "1"},
        {"x-extauthz-" + "0123456789abcdef" * 2: "the text that stands for a decision id"},
        {"cookie": "1", "x-original-url": "/"},
    ]
    tokens = [*(fuzz.put_token(world, kind) for kind in ("GLOBAL", "GLOBAL", "USER", "ANONYMOUS"))]
    credentials = [{}, *map(bearer, tokens), oauth(JWT["ES256"]), oauth(JWT["RS256"])]
    lines = ["POST /search", "GET /open", "GET /items/1", "GET /items/2", "GET /none"]
    return [
        [check_request(method, path, {**credential, **user, **more}.items()) for method, path in map(str.split, lines)]
        for credential in credentials
        for user in users
        for more in odd
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_answer_does_not_depend_on_the_answers_before_it(world: World, families: list[list[bytes]], data: st.DataObject) -> None:
    """What is remembered to be fast is remembered for exactly the same question: only the decision's id differs."""
    serial = [0]
    busy = authorizer_of(world, serial)
    chosen = data.draw(st.lists(st.sampled_from(families), min_size=1, max_size=4))
    for data_sent in [request for _ in range(2) for family in chosen for request in data.draw(st.permutations(family))]:
        answer = busy.check(data_sent)
        number = serial[0]
        fresh = authorizer_of(world, serial).check(data_sent)
        assert isinstance(answer, bytes)
        assert isinstance(fresh, bytes)
        mine, theirs = f"{number:032x}".encode(), f"{serial[0]:032x}".encode()

        assert answer.count(mine) >= 2
        assert pb.CheckResponse.FromString(answer.replace(mine, theirs)) == pb.CheckResponse.FromString(fresh)


STAND_IN = "0123456789abcdef" * 2


def test_the_text_that_stands_for_a_decision_id_may_be_sent(tmp_path: pathlib.Path) -> None:
    """Answers are kept with this text in the place of the id; a client that knows it changes nothing by sending it."""
    route = {"match": f"POST /{STAND_IN}", "scope": "SEARCH", "name": f"route {STAND_IN}"}
    world = World(tmp_path, [*ROUTES, route])
    token = fuzz.put_token(world, "GLOBAL")
    user = f"{STAND_IN}@acme.com"
    for line in ("POST /search", f"POST /{STAND_IN}"):
        for name in (f"x-extauthz-{STAND_IN}", STAND_IN, "x-extauthz-a"):
            for _ in range(3):
                answer = world.check(line, bearer(token, x_scio_actas=user) | {name: STAND_IN})
                assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", user)
                assert answer.headers["x-extauthz-decision-id"] == DECISION_ID
                assert answer.metadata["route"] == (line if line == "POST /search" else f"route {STAND_IN}")
                assert answer.metadata["user"] == user
                assert (name in answer.removed) == name.startswith("x-extauthz-")
