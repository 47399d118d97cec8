"""The whole path from bytes to bytes in memory: configuration from YAML, real keys and tokens, a clock that stands still."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jwt as pyjwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.oauth.published_keys import usable_keys
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.loader import Configuration, load
from extauthz.core import jwt
from extauthz.core.model import AuthType, Decision, Reason, Request, WouldDeny
from extauthz.core.providers import Verification
from extauthz.core.tokens import ENTROPY_BYTES, fingerprint
from extauthz.errors import Unavailable
from extauthz.ports import Introspector
from extauthz.responses.internal_tokens import InternalTokens
from extauthz.runtime.build import BuiltRuntime, VerifierSources, build_runtime, void_what_changed
from extauthz.runtime.codec import build_internal_tokens
from extauthz.runtime.oauth import ProviderSources, entries_of, provider_digest
from extauthz.service import Authorizer
from extauthz.verifiers.change_feed import Feed
from tests.support.idp_fixtures import overlaid
from tests.support.memory_store import MemoryTokenStore

NOW = 1_800_000_000
ISSUER = "https://acme.okta.com/oauth2/default"
CLIENT = "0oa1example"
PEPPER = b"a pepper for tests, 32 bytes long"
DECISION_ID = "5eed" * 8

SETTINGS: dict[str, Any] = {
    "version": 1,
    # Checks wait by the clock of the machine, which may be busy: a test that means the time-out sets its own.
    "server": {"listen": "127.0.0.1:9001", "ops": None, "check_timeout": "60s"},
    "oauth": {"provider": "okta", "issuer": ISSUER, "client_ids": [CLIENT], "audience": "api://default"},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"]},
    "scopes": ["CHAT", "DOCUMENTS", "FEED", "SEARCH"],
    "routes": ["routes.yaml"],
}


class StillClock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.wall = now
        self.ticks = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        """Move both clocks."""
        self.wall += seconds
        self.ticks += seconds


class ListRecorder:
    """Keeps every request and its decision."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.decisions: list[Decision] = []

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        self.requests.append(request)
        self.decisions.append(decision)

    def clear(self) -> None:
        """Forget all of them."""
        self.requests.clear()
        self.decisions.clear()


class StillKeys:
    """A key source that holds one key set, or nothing."""

    def __init__(self, keys: jwt.KeySet | None, fetched_at: float = NOW) -> None:
        self.key_set = keys
        self.fetched_at = fetched_at

    def keys(self) -> jwt.KeySet | None:
        return self.key_set

    async def load(self) -> jwt.KeySet:
        if self.key_set is None:
            raise Unavailable(Reason.KEY_SET_UNAVAILABLE)
        return self.key_set

    def reload_for_unknown_key(self) -> None:
        return None


@cache
def rsa_key(name: str = "rsa-1", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the RSA key of a name, made once per run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str = "ec-1") -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of a name, made once per run."""
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    """Return the public JWK as a provider publishes it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return pyjwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": "RS256"}
    return pyjwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": "ES256"}


def jwks() -> dict[str, Any]:
    """Return the JWKS document of the issuer: an RSA key rsa-1 and a P-256 key ec-1."""
    return {"keys": [public_jwk(rsa_key(), "rsa-1"), public_jwk(ec_key(), "ec-1")]}


def key_set(document: object, algorithms: Iterable[str] = ("RS256", "ES256")) -> jwt.KeySet:
    """Return the usable keys of a JWKS document, as the adapter reads it."""
    return usable_keys(document, algorithms)[0]


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a genuine Okta access token, as published but for this world's names and time; None removes one."""
    ours = {
        "jti": "AT.3ljZk",
        "iss": ISSUER,
        "aud": "api://default",
        "sub": "ana@acme.com",
        "iat": NOW - 60,
        "exp": NOW + 3600,
        "cid": CLIENT,
        "uid": "00u1example",
    }
    return overlaid("okta_access_token_claims", ours, changes)


def sign(
    payload: bytes | dict[str, Any], *, algorithm: str = "RS256", key: Any = None, header: dict[str, Any] | None = None
) -> str:
    """Write a JWT; bytes are signed as they are, so that what no encoder would write can be signed too."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    kid = {"RS256": "rsa-1", "ES256": "ec-1"}.get(algorithm)
    fields = {"alg": algorithm, "kid": kid} | (header or {})
    signer = key or {"RS256": rsa_key, "ES256": ec_key}[algorithm]()
    head = base64url(json.dumps({name: value for name, value in fields.items() if value is not None}).encode())
    signing_input = f"{head}.{base64url(data)}"
    signature = pyjwt.get_algorithm_by_name(algorithm).sign(signing_input.encode(), signer)
    return f"{signing_input}.{base64url(signature)}"


def base64url(data: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def check_request(
    method: str,
    path: str,
    headers: Iterable[tuple[str, str | bytes]] = (),
    *,
    host: str = "api.acme.com",
    form: str = "raw",
    source: str = "203.0.113.7",
) -> bytes:
    """Write a CheckRequest as Envoy does: form "raw" (encode_raw_headers) or "map"."""
    message = pb.CheckRequest()
    message.attributes.source.address.socket_address.address = source
    http = message.attributes.request.http
    http.id, http.method, http.scheme, http.protocol = "13519049518330544501", method, "https", "HTTP/1.1"
    lines: list[tuple[str, str | bytes]] = [
        (":authority", host),
        (":path", path),
        (":method", method),
        (":scheme", "https"),
        *headers,
    ]
    if form == "raw":
        for name, value in lines:
            line = http.header_map.headers.add()
            line.key = name
            line.raw_value = value if isinstance(value, bytes) else value.encode("latin-1")
        http.path, http.host = _sanitized(path), _sanitized(host)
    else:
        joined: dict[str, str] = {}
        for name, value in lines:
            text = _sanitized(value)
            joined[name] = f"{joined[name]},{text}" if name in joined else text
        http.headers.update(joined)
        http.path, http.host = _sanitized(path), _sanitized(host)
    return message.SerializeToString()


def _sanitized(value: str | bytes) -> str:
    data = value if isinstance(value, bytes) else value.encode("latin-1")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else "!" for byte in data)


@dataclass
class Answer:
    """A CheckResponse, taken apart."""

    message: pb.CheckResponse
    decision: Decision

    @property
    def allowed(self) -> bool:
        """What Envoy makes of it."""
        return self.message.status.code == 0

    @property
    def forwarded(self) -> bool:
        """Whether monitor mode let it pass although enforcing refuses it."""
        return isinstance(self.decision, WouldDeny)

    @property
    def reason(self) -> str:
        """The true reason, as recorded."""
        return self.decision.reason.value

    @property
    def denied(self) -> pb.DeniedHttpResponse:
        """The denial, also when it is told as an error."""
        has_error = self.message.HasField("error_response")
        return self.message.error_response if has_error else self.message.denied_response

    @property
    def status(self) -> int:
        """The HTTP status that the client sees; 200 stands for the upstream's own."""
        return 200 if self.allowed else self.denied.status.code

    @property
    def headers(self) -> dict[str, str]:
        """The headers set: to the upstream on allow, to the client on deny."""
        options = self.message.ok_response.headers if self.allowed else self.denied.headers
        return {option.header.key: option.header.value for option in options}

    @property
    def removed(self) -> list[str]:
        """The headers that the upstream does not get."""
        return list(self.message.ok_response.headers_to_remove)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of a denial."""
        return json.loads(self.denied.body)  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[str, str | float]:
        """The dynamic metadata: texts, and numbers."""
        fields = self.message.dynamic_metadata.fields
        return {name: value.string_value or value.number_value for name, value in fields.items()}


@dataclass
class World:
    """One configured authorizer.

    `routes` is the text or data of the route file; `changes` are merged into SETTINGS, section by section.
    A section that is None in `changes` is left out; a list of OAuth providers replaces the one of SETTINGS. `sources` are key
    sources by issuer, where they differ from `keys`; `introspectors` are asked by issuer and method.
    """

    folder: Path
    routes: Any
    changes: dict[str, Any] = field(default_factory=dict)
    keys: StillKeys = field(default_factory=lambda: StillKeys(key_set(jwks())))
    more_files: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, StillKeys] = field(default_factory=dict)
    introspectors: dict[tuple[str, Verification], Introspector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = StillClock()
        self.recorder = ListRecorder()
        self.store = MemoryTokenStore()
        self.configuration = self._configure()
        self._serial = 0
        self.feed = Feed(clock=self.clock, memory=660.0)
        self.poll()
        self.internal_tokens: InternalTokens | None = None
        self.built = self.build()
        self.verdicts = self.built.verdicts
        self.authorizer = Authorizer(self.built.runtime, self.recorder, clock=self.clock, decision_ids=lambda: DECISION_ID)

    def reconfigure(self, routes: Any = None, **changes: Any) -> BuiltRuntime:
        """Take other routes and settings as a hot reload does; return what decided before."""
        self.routes = self.routes if routes is None else routes
        self.changes |= changes
        self.configuration = self._configure()
        before, self.built = self.built, self.build(self.built)
        self.verdicts = self.built.verdicts
        self.authorizer.swap(self.built.runtime)
        void_what_changed(before, self.built)
        return before

    def build(self, before: BuiltRuntime | None = None) -> BuiltRuntime:
        """Return what decides in this world, with nothing in memory yet but what it keeps of before."""
        outside = VerifierSources(self.store, self.feed, {"p1": PEPPER}, tuple(self._providers()))
        self.internal_tokens = build_internal_tokens(
            self.configuration, self.configuration.internal_token_keys({}), previous=self.internal_tokens
        )
        outside.internal_tokens = self.internal_tokens
        return build_runtime(self.configuration, outside, clock=self.clock, before=before)

    def _providers(self) -> Iterator[ProviderSources]:
        for entry, rules in entries_of(self.configuration):
            keys = self.sources.get(rules.issuer, self.keys) if rules.verification is Verification.JWKS else None
            ways = {method: way for (issuer, method), way in self.introspectors.items() if issuer == rules.issuer}
            yield ProviderSources(provider_digest(self.configuration, entry, rules, None), rules, keys, ways)

    def poll(self) -> None:
        """Read the change feed, as the follower does."""
        self.feed.apply(self.store.read_feed(self.feed.position))

    def token(
        self,
        permission: str = "GLOBAL",
        *scopes: str,
        user: str | None = None,
        lifetime: int = 86400,
        created_at: int = NOW - 60,
        revoked: bool = False,
    ) -> str:
        """Issue a token and return its text; USER acts for ana@acme.com unless told otherwise."""
        self._serial += 1
        tokens = self.configuration.settings.tokens
        assert tokens is not None
        order = TokenRequest(
            description=f"test token {self._serial}",
            permission=AuthType(permission),
            scopes=frozenset(scopes or ("SEARCH",)),
            created_at=created_at,
            created_by="test",
            expires_at=created_at + lifetime,
            user=user or ("ana@acme.com" if permission == "USER" else None),
        )
        rules = TokenRules(
            tokens.prefix, frozenset(self.configuration.settings.scopes), tokens.max_lifetime, self.configuration.policy.act_as
        )
        entropy = hashlib.shake_256(str(self._serial).encode()).digest(ENTROPY_BYTES)
        text, record = issue(order, rules, pepper_id="p1", pepper=PEPPER, entropy=entropy)
        self.store.add(record, fingerprint(PEPPER))
        if revoked:
            self.store.revoke(record.id, at=NOW - 1, by="test")
        return text.text

    def check_bytes(self, data: bytes) -> Answer:
        """Answer bytes; the decision path must answer at once."""
        answer = self.authorizer.check(data)
        assert isinstance(answer, bytes), "the check had to wait"
        return Answer(pb.CheckResponse.FromString(answer), self.recorder.decisions[-1])

    def check(
        self,
        line: str,
        headers: dict[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
        *,
        form: str = "raw",
        host: str = "api.acme.com",
    ) -> Answer:
        """Answer a request written as "METHOD /path"."""
        method, _, path = line.partition(" ")
        pairs = headers.items() if isinstance(headers, dict) else headers
        return self.check_bytes(check_request(method, path, pairs, host=host, form=form))

    def _configure(self) -> Configuration:
        settings = {**SETTINGS}
        for name, change in self.changes.items():
            if change is None:
                settings.pop(name, None)
            elif "providers" in change:
                settings[name] = change
            else:
                settings[name] = {**settings[name], **change} if isinstance(settings.get(name), dict) else change
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pepper").write_bytes(PEPPER)
        for name, content in {"routes.yaml": self.routes, **self.more_files}.items():
            data = (
                content
                if isinstance(content, str)
                else yaml.safe_dump(content if isinstance(content, dict) else {"routes": content})
            )
            (self.folder / name).write_text(data, encoding="utf-8")
        file = self.folder / "extauthz.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return load(file)


def bearer(token: str, **more: str) -> dict[str, str | bytes]:
    """Return the Authorization header, and others with _ for -."""
    return {"authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in more.items()}


def oauth(token: str, **more: str) -> dict[str, str | bytes]:
    """Return the headers of a request with an OAuth access token."""
    return bearer(token, x_glean_auth_type="OAUTH", **more)


MakeWorld = Callable[..., World]
