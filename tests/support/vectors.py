"""Vector tables: what a case of `tests/vectors/*.yaml` says, and the worlds, tokens and requests that it needs.

A file holds `worlds`, `tokens` and `groups`; a group has a name, the rule that it covers, a world, fields that all of its cases
share (`given`) and the cases. `each` in a case makes one case of every item, which stands where `<<each>>` is. In strings,
`<<name>>` is the text of a token, `<<name.id>>` its public id, and `<<a*3>>` is "aaa". A key that nobody knows is an error.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jwt as pyjwt
import yaml
from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.core import jwt
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, fingerprint
from extauthz.errors import Unavailable
from extauthz.service import Authorizer
from tests.support.memory_store import MemoryTokenStore
from tests.support.project import TESTS
from tests.support.world import (
    DECISION_ID,
    NOW,
    PEPPER,
    Answer,
    StillKeys,
    World,
    base64url,
    check_request,
    claims,
    ec_key,
    key_set,
    public_jwk,
    rsa_key,
)

VECTORS = TESTS / "vectors"

_PLACE = re.compile(r"<<(?:(?P<text>(?:(?!>>).)+?)\*(?P<count>[0-9]+)|(?P<name>[a-z0-9_-]+)(?P<id>\.id)?)>>", re.DOTALL)
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WORLD_KEYS = {"routes", "files", "keys", "fetched_at", "store", "max_in_flight"}
_SETTINGS = {"server", "oauth", "tokens", "act_as", "auth_type", "identity", "envoy", "realm", "scopes", "mode"}
_TOKEN_KEYS = {"permission", "scopes", "user", "created_at", "expires_at", "revoked", "stored", "row", "write", "prefix"}
_ONE_ANSWER = (
    *("reason", "status", "code", "route", "user", "actor", "auth_type", "scopes"),
    *("challenge", "told", "error", "answered_by"),
)
"""What an answer has one of: a case that lists several would pass whichever comes."""
_JWT_KEYS = {
    "claims",
    "header",
    "members",
    "more",
    "payload",
    "header_text",
    "encoding",
    "sign",
    "signature",
    "form",
    "loose",
    "swapped",
}


@dataclass(frozen=True)
class Case:
    """One case with the fields of its group; `data` is what the YAML says."""

    file: str
    group: str
    number: int
    rule: str
    world: Mapping[str, Any]
    tokens: Mapping[str, Any]
    data: Mapping[str, Any]

    def __str__(self) -> str:
        """Name the case for pytest."""
        about = self.data.get("about", "") or next((str(self.data[key]) for key in ("send", "path") if key in self.data), "")
        label = ascii(about if len(about) < 60 else about[:57] + "...")[1:-1].replace("::", ": :")
        return f"{self.file}-{self.group}-{self.number}-{label}"


@cache
def load(name: str) -> dict[str, Any]:
    """Read a vector file, refusing keys that stand twice."""
    data = yaml.load((VECTORS / f"{name}.yaml").read_text("utf-8"), _UniqueKeys)  # noqa: S506 - a safe loader
    known(data, {"worlds", "tokens", "groups", "reasons", "claims", "providers"}, name)
    return data  # type: ignore[no-any-return]


def cases(name: str, data: Mapping[str, Any], allowed: set[str]) -> list[Case]:
    """Return every case of a file; `allowed` are the keys that a case may have."""
    found: list[Case] = []
    seen: set[str] = set()
    for group in data["groups"]:
        known(group, {"group", "rule", "world", "given", "cases", "alike"}, f"{name}: {group.get('group')}")
        if not group["cases"] or group["group"] in seen or not group["rule"]:
            raise ValueError(f"{name}: {group['group']}: a group has a name of its own, a rule and cases")
        seen.add(group["group"])
        world = group.get("world", "main")
        world = data["worlds"][world] if isinstance(world, str) else world
        known(world, _WORLD_KEYS | _SETTINGS, f"{name}: {group['group']}: world")
        for fields in _expanded([{**group.get("given", {}), **row} for row in group["cases"]]):
            known(fields, allowed, f"{name}: {group['group']}: {fields}")
            if several := [key for key in _ONE_ANSWER if isinstance(fields.get(key), list)]:
                raise ValueError(f"{name}: {group['group']}: {several[0]} is a list in {fields}: name the one that is right")
            found.append(Case(name, group["group"], len(found) + 1, group["rule"], world, data.get("tokens", {}), fields))
    return found


def known(data: Mapping[str, Any], allowed: set[str], where: str) -> None:
    """Raise ValueError for a key that nobody reads."""
    if unknown := set(data) - allowed:
        raise ValueError(f"{where}: unknown keys {sorted(unknown)}")


class _UniqueKeys(yaml.CSafeLoader):
    """A safe loader, written in C as the files are long, that refuses a mapping in which a key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Compare the keys before the mapping swallows one."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise ValueError(f"{node.start_mark}: {twice} twice")
        return super().construct_mapping(node, deep)


def _expanded(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if "each" not in row:
            yield row
            continue
        rest = {key: value for key, value in row.items() if key != "each"}
        for item in row["each"]:
            if not isinstance(item, str):
                raise ValueError(f"{item!r} in each is not text")
            placed = filled(rest, partial(_with_item, item))
            if placed == rest:
                raise ValueError(f"nothing in {rest} says <<each>>")
            about = placed.get("about") or next((placed[key] for key in ("send", "path") if "<<each>>" in rest.get(key, "")), "")
            yield {**placed, "about": about if item in about and item else f"{about} {item}"}


def _with_item(item: str, text: str) -> str:
    return text.replace("<<each>>", item)


def filled(value: Any, write: Callable[[str], str]) -> Any:
    """Rewrite every string in plain data, keys included."""
    if isinstance(value, str):
        return write(value)
    if isinstance(value, dict):
        return {filled(key, write): filled(item, write) for key, item in value.items()}
    return [filled(item, write) for item in value] if isinstance(value, list) else value


class _FailingKeys(StillKeys):
    """A key source without keys that fails, hangs or ends in its own way."""

    def __init__(self, way: str) -> None:
        super().__init__(None)
        self._way = way

    async def load(self) -> jwt.KeySet:
        if self._way == "hangs":
            await asyncio.get_running_loop().create_future()
        if self._way == "cancelled":
            raise asyncio.CancelledError
        if self._way == "broken":
            raise RuntimeError("a fault of ours")
        raise Unavailable(Reason(self._way))  # type: ignore[call-arg]


class _FailingStore(MemoryTokenStore):
    """A store that cannot be read."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self._way = way

    def find(self, token_id: str) -> TokenRecord | None:
        if self._way == "broken":
            raise RuntimeError("a fault of ours")
        raise Unavailable(Reason(self._way))  # type: ignore[call-arg]


@dataclass
class VectorWorld:
    """A world made for a group, and the tokens that its cases name."""

    world: World
    tokens: Mapping[str, Any]
    waits: bool
    texts: dict[str, str] = field(default_factory=dict)

    def fill(self, value: Any) -> Any:
        """Put tokens and repetitions into data."""
        if isinstance(value, dict) and "about" in value:
            return {"about": value["about"]} | self.fill({name: item for name, item in value.items() if name != "about"})
        return filled(value, lambda text: _PLACE.sub(self._placed, text))

    def make(self, name: str, said: Mapping[str, Any]) -> None:
        """Make a token under a name."""
        known(said, {"jwt"} if "jwt" in said else _TOKEN_KEYS, f"token {name}")
        said = self.fill(dict(said))
        self.texts[name] = self.jwt(said["jwt"]) if "jwt" in said else self.issued(name, said)

    def ask(self, data: bytes) -> Answer:
        """Answer bytes; in a world that has to wait, wait."""
        return asyncio.run(self._asked(data)) if self.waits else self.world.check_bytes(data)

    async def _asked(self, data: bytes) -> Answer:
        answer = self.world.authorizer.check(data)
        if not isinstance(answer, bytes):
            answer = await answer
        return Answer(pb.CheckResponse.FromString(answer), self.world.recorder.decisions[-1])

    def _placed(self, match: re.Match[str]) -> str:
        if match["count"]:
            return _repeated(match)
        name = match["name"]
        if name not in self.texts:
            self.make(name, self.tokens[name])
        return self.texts[name].split("_")[1] if match["id"] else self.texts[name]

    def issued(self, name: str, said: Mapping[str, Any]) -> str:
        """Issue a token and store its record, changed as `row` says; `write` replaces parts of the text."""
        tokens = self.world.configuration.settings.tokens
        assert tokens is not None
        permission = AuthType(said.get("permission", "GLOBAL"))
        order = TokenRequest(
            description=f"vector {name}",
            permission=permission,
            scopes=frozenset(said.get("scopes", ["SEARCH"])),
            created_at=NOW + said.get("created_at", -60),
            created_by="vectors",
            expires_at=NOW + said.get("expires_at", 86400),
            user=said.get("user", "ana@acme.com" if permission is AuthType.USER else None),
        )
        prefix = said.get("prefix", tokens.prefix)
        rules = TokenRules(
            prefix, frozenset(self.world.configuration.settings.scopes), tokens.max_lifetime, self.world.configuration.policy.act_as
        )
        entropy = hashlib.sha384(name.encode()).digest()
        assert len(entropy) == ENTROPY_BYTES
        text, record = issue(order, rules, pepper_id="p1", pepper=PEPPER, entropy=entropy)
        row = dict(said.get("row", {}))
        if "scopes" in row:
            row["scopes"] = frozenset(row["scopes"])
        if "permission" in row:
            row["permission"] = AuthType(row["permission"])
        if said.get("revoked"):
            row |= {"revoked_at": NOW - 1, "revoked_by": "vectors"}
        if said.get("stored", True):
            self.world.store.add(replace(record, **row), fingerprint(PEPPER))
        return _rewritten(text.text, said["write"]) if "write" in said else text.text

    def jwt(self, said: Mapping[str, Any]) -> str:
        """Write a JWT; all that a case does not say is genuine."""
        known(said, _JWT_KEYS, "jwt")
        algorithm = said.get("sign", "RS256")
        names = {"ES256": "ec-1", "other-ec": "ec-1", "der": "ec-1", "zeros": "ec-1"}
        algorithms = {"ES256": "ES256", "other-ec": "ES256", "der": "ES256", "zeros": "ES256", "none": "none"}
        fields = {"alg": algorithms.get(algorithm, algorithm if algorithm[:2] in ("PS", "RS", "HS") else "RS256")}
        fields |= {"kid": names.get(algorithm, "rsa-1")}
        fields |= said.get("header", {})
        head = said.get("header_text") or json.dumps({key: value for key, value in fields.items() if value is not None})
        payload = said.get("payload") or _object(claims(**said.get("claims", {})), said.get("members", {}), said.get("more"))
        parts = {"header": head.encode(), "payload": payload.encode(said.get("encoding", "utf-8"))}
        loose = said.get("loose")
        if loose in parts:
            parts[loose] += b" " * ((1 - len(parts[loose])) % 3)
        texts = {name: base64url(part) for name, part in parts.items()}
        signing_input = f"{texts['header']}.{texts['payload']}"
        texts["signature"] = said["signature"] if "signature" in said else base64url(_signature(algorithm, signing_input.encode()))
        if "swapped" in said:
            texts["payload"] = base64url(_object(claims(**said["swapped"]), {}).encode())
        if loose:
            texts[loose] = _loosened(texts[loose])
        text: str = said.get("form", "{header}.{payload}.{signature}").format(**texts)
        if "{standard}" in text:
            text = text.replace("{standard}", "").replace("-", "+").replace("_", "/")
            assert re.search("[+/]", text)
        return text


def build(folder: Path, said: Mapping[str, Any], tokens: Mapping[str, Any]) -> VectorWorld:
    """Make the world of a group."""
    said = filled(dict(said), lambda text: _PLACE.sub(_repeated, text))
    changes = {name: value for name, value in said.items() if name in _SETTINGS}
    files = said.get("files", {})
    if files:
        changes["routes"] = ["routes.yaml", *files]
    keys = said.get("keys", "good")
    waits = isinstance(keys, str) and keys != "good"
    source = _FailingKeys(keys) if waits else StillKeys(_keys(keys), NOW + said.get("fetched_at", 0))
    contents = {name: _routes(content) for name, content in files.items()}
    world = World(folder, _routes(said["routes"]), changes, source, contents)
    if "store" in said:
        world.store = _FailingStore(said["store"])
        world.authorizer.swap(world.build().runtime)
    if "max_in_flight" in said:
        limit = said["max_in_flight"]
        runtime = replace(world.build().runtime, max_in_flight=limit)
        world.authorizer = Authorizer(runtime, world.recorder, clock=world.clock, decision_ids=lambda: DECISION_ID)
    return VectorWorld(world, tokens, waits)


def requests(case: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the request of a case in each form of the protocol that it is meant for."""
    if "bytes" in case:
        return {"bytes": bytes.fromhex(case["bytes"])}
    if "message" in case:
        return {"message": json_format.ParseDict(_raw_values(case["message"]), pb.CheckRequest()).SerializeToString()}
    method, _, path = case["send"].partition(" ")
    lines = case.get("with", {})
    pairs = [(name, value) for name, value in (lines.items() if isinstance(lines, dict) else lines)]
    forms = [case["form"]] if "form" in case else ["raw", "map"]
    host = case.get("host", "api.acme.com")
    return {form: check_request(method, path, pairs, host=host, form=form) for form in forms}


def _repeated(match: re.Match[str]) -> str:
    return match["text"] * int(match["count"])


def _routes(said: Any) -> Any:
    """Let one string stand for a public route; text stays text."""
    if isinstance(said, str):
        return said
    lines = said["routes"] if isinstance(said, dict) else said
    lines = [{"match": line, "public": True} if isinstance(line, str) else line for line in lines]
    return said | {"routes": lines} if isinstance(said, dict) else lines


def _raw_values(value: Any) -> Any:
    """Write raw_value as the JSON form of protobuf wants it."""
    if isinstance(value, dict):
        return {
            name: base64.b64encode(item.encode("latin-1")).decode() if name == "raw_value" else _raw_values(item)
            for name, item in value.items()
        }
    return [_raw_values(item) for item in value] if isinstance(value, list) else value


def _keys(said: str | list[dict[str, Any]]) -> jwt.KeySet:
    """Return a key set as the adapter reads it from a JWKS document."""
    if isinstance(said, str):
        said = [{"make": "rsa-1", "kid": "rsa-1"}, {"make": "ec-1", "kid": "ec-1"}]
    document = []
    for entry in said:
        known(entry, {"make", "bits", "kid", "set"}, "key")
        made = entry["make"]
        key = _key(made, entry.get("bits"))
        jwk = public_jwk(key, entry["kid"]) | entry.get("set", {})
        document.append({name: value for name, value in jwk.items() if value is not None})
    return key_set({"keys": document}, ("RS256", "ES256"))


def _key(made: str, bits: int | None = None) -> Any:
    """Return the key of a name; rsa-1 and ec-1 are those that the issuer of every world signs with."""
    if made in ("rsa-1", "ec-1"):
        return rsa_key() if made == "rsa-1" else ec_key()
    return ec_key(made) if made.startswith("ec") else rsa_key(made, bits or 2048)


def _object(genuine: dict[str, Any], members: Mapping[str, str], more: str | None = None) -> str:
    """Write a JSON object; `members` and `more` are raw JSON texts, so that what no encoder writes can be written."""
    texts = {json.dumps(name): json.dumps(value) for name, value in genuine.items()}
    texts |= {json.dumps(name): text for name, text in members.items()}
    lines = [f"{name}: {text}" for name, text in texts.items()]
    return "{" + ", ".join([*lines, more] if more else lines) + "}"


def _signature(algorithm: str, data: bytes) -> bytes:
    if algorithm == "HS256":
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return hmac.digest(rsa_key().public_key().public_bytes(encoding, form), data, "sha256")
    if algorithm == "der":
        return pyjwt.utils.raw_to_der_signature(_signature("ES256", data), ec_key().curve)
    if algorithm in ("zeros", "none"):
        return bytes(64) if algorithm == "zeros" else b""
    signers = {
        "ES256": ("ES256", _key("ec-1")),
        "other-ec": ("ES256", _key("ec-of-a-stranger")),
        "other-rsa": ("RS256", _key("rsa-of-a-stranger")),
    }
    if algorithm == "weak-rsa":
        return pyjwt.get_algorithm_by_name("RS256").sign(data, _key("rsa-weak", 1024))
    name, key = signers.get(algorithm, (algorithm, rsa_key()))
    return pyjwt.get_algorithm_by_name(name).sign(data, key)


def _loosened(text: str) -> str:
    """Change bits of the last character that decoding drops."""
    unused = {2: 4, 3: 2}[len(text) % 4]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    assert last % (1 << unused) == 0
    return text[:-1] + alphabet[last + 1]


def _rewritten(text: str, changes: Mapping[str, str]) -> str:
    """Replace parts of an issued token's text; the checksum is then computed again, unless it is given or to stay the `same`."""
    known(changes, {"prefix", "id", "secret", "checksum"}, "write")
    prefix, token_id, rest = text.split("_")
    body = "_".join((changes.get("prefix", prefix), changes.get("id", token_id), changes.get("secret", rest[:43])))
    wanted = changes.get("checksum", checksum(body))
    return body + (rest[43:] if wanted == "same" else wanted)


def checksum(body: str) -> str:
    """Six base62 characters of CRC32 over all that stands before."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
