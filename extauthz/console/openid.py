"""Logging in by OpenID Connect (Core 3.1, code flow) with PKCE (RFC 7636): from the browser that leaves to the one that comes back.

Nothing is kept here meanwhile. All that belongs to a login is derived from a random seed in a cookie of the browser that began it,
so that every console of a store can finish it, and no stranger can fill a table.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import MAX_CAUSE, JsonFetcher, is_acceptable
from extauthz.adapters.oauth.jwks import JwksSource
from extauthz.config.console import LoginSection
from extauthz.console.id_tokens import ALGORITHMS, EMAIL, LEEWAY, VERIFIED, Expected, LoginRefusal, address_of, key_of, refusal
from extauthz.console.login_cookie import LIFETIME, PendingLogin
from extauthz.core import jwt
from extauthz.core.claims import moment
from extauthz.core.jwt import KeySet
from extauthz.core.model import Reason
from extauthz.errors import FetchError, Unavailable
from extauthz.ports import Clock

FETCH_TIMEOUT = 5.0
"""Seconds for one answer of the provider; a login waits for four of them at most, and once for the end of a pause."""
KEY_AGE = 600.0
"""Seconds that keys are used before newer ones are asked for."""
MAX_QUERY = 8192
"""Characters."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes now, and what it keeps in COOKIE for LIFETIME."""

    address: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Whose address it is, when the provider says that the user authenticated (None: it does not say), and where to go on.

    `subject` is the user's name at the issuer, which an address may leave for another user; `issued_at` is that of the ID token.
    """

    email: str
    authenticated_at: int | None
    path: str
    subject: str
    issued_at: int


class OpenIdLogin:
    """Logins by one provider, for one client; it raises Unavailable where the provider cannot be asked."""

    def __init__(
        self,
        section: LoginSection,
        redirect_uri: str,
        *,
        secret: bytes | None,
        trust: bytes | None,
        clock: Clock,
        timeout: float = FETCH_TIMEOUT,
    ) -> None:
        """Fetch nothing yet. `redirect_uri` is ours, which the provider knows; `trust` is a bundle in PEM; `timeout` in seconds.

        Raises FetchError for an unusable bundle.
        """
        self._section = section
        self._redirect_uri = redirect_uri
        # Some ID tokens have the address, and only userinfo says that it is verified.
        self._needed = {section.email_claim} if section.unverified_addresses else {section.email_claim, VERIFIED}
        self._secret = None if secret is None else secret.decode()
        self._fetcher = JsonFetcher(timeout=timeout, trust=trust)
        address = f"{section.issuer.rstrip('/')}/.well-known/openid-configuration"
        self._discovery = Discovery(section.issuer, address, self._fetcher, clock=clock)
        self._keys = JwksSource(self._discovery, ALGORITHMS, self._fetcher, clock=clock, unnamed=True)

    @property
    def issuer(self) -> str:
        """Who logs people in, as the configuration named it when the console started."""
        return self._section.issuer

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends browsers back to."""
        return self._redirect_uri

    async def close(self) -> None:
        """Close the connections to the provider."""
        await self._fetcher.close()

    async def begin(self, path: str, now: float, *, again: bool = False, chooses: bool = False, hint: str = "") -> Begun:
        """Begin a login that goes on at a path of ours; with `again` the provider asks for it whoever is logged in there.

        With `chooses` it asks which account is meant, without a login; `hint` is the address that the user has probably.
        """
        async with self._asking():
            address = await self._discovery.endpoint("authorization_endpoint")
            if not is_acceptable(address) or "#" in address:
                raise FetchError(f"the discovery document of {self._section.issuer} names no usable authorization_endpoint")
        login = PendingLogin.begin(path, int(now), again=again)
        query = {
            "response_type": "code",
            "response_mode": "query",  # a POST from there would come without our cookie
            "client_id": self._section.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": "openid email" if self._section.email_claim == EMAIL else "openid email profile",
            "state": login.derived("state"),
            "nonce": login.derived("nonce"),
            "code_challenge": login.challenge,
            "code_challenge_method": "S256",
        }
        query |= {"prompt": "login", "max_age": "0"} if again else {}
        query |= {"prompt": "select_account"} if chooses else {}
        query |= {"login_hint": hint} if hint else {}
        return Begun(f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", str(login))

    async def finish(self, query: str, cookie: str, now: float) -> Authenticated | LoginRefusal:
        """Finish a login with the query and the cookie that the browser came back with."""
        login, fields = PendingLogin.read(cookie), _fields(query)
        if login is None:
            return LoginRefusal.NOT_BEGUN
        if fields is None:
            return LoginRefusal.ANSWER_MALFORMED
        if not hmac.compare_digest(fields.get("state", "").encode(), login.derived("state").encode()):
            return LoginRefusal.STATE
        if not -LEEWAY < now - login.begun_at < LIFETIME:
            return LoginRefusal.TOO_LATE
        async with self._asking():
            ended = await self._answer_refusal(fields) or await self._finish(fields["code"], login, now)
        if isinstance(ended, LoginRefusal):
            _log.warning("login refused", extra={"issuer": self._section.issuer, "reason": ended.name.lower()})
        return ended

    async def _answer_refusal(self, fields: Mapping[str, str]) -> LoginRefusal | None:
        """Refuse what another provider answered (RFC 9207 2.4), and what is no code."""
        names_itself = (await self._discovery.document()).get("authorization_response_iss_parameter_supported") is True
        if fields.get("iss", None if names_itself else self._section.issuer) != self._section.issuer:
            return LoginRefusal.ANSWER_ISSUER
        if "error" in fields:
            return LoginRefusal.DENIED if fields["error"] == "access_denied" else LoginRefusal.PROVIDER_ERROR
        return None if fields.get("code") else LoginRefusal.ANSWER_MALFORMED

    async def _finish(self, code: str, login: PendingLogin, now: float) -> Authenticated | LoginRefusal:
        tokens = await self._exchange(code, login.derived("verifier"))
        if isinstance(tokens, LoginRefusal):
            return tokens
        text = tokens.get("id_token")
        if not isinstance(text, str):
            return LoginRefusal.NO_ID_TOKEN
        since = max(login.begun_at, now - LIFETIME) if login.again else None
        expected = Expected(self._section.issuer, self._section.client_id, login.derived("nonce"), since)
        claims = await self._verified(text, expected, now)
        if not isinstance(claims, LoginRefusal) and not self._needed.issubset(claims):
            claims = await self._with_userinfo(claims, tokens.get("access_token"))
        if isinstance(claims, LoginRefusal):
            return claims
        email = address_of(claims, self._section.email_claim, unverified=self._section.unverified_addresses)
        if isinstance(email, LoginRefusal):
            return email
        authenticated_at = moment(claims.get("auth_time"))
        at = None if authenticated_at is None else int(authenticated_at)
        return Authenticated(email, at, login.path, claims["sub"], int(claims["iat"]))

    async def _exchange(self, code: str, verifier: str) -> Mapping[str, Any] | LoginRefusal:
        """Change the code into tokens (RFC 6749 4.1.3); a client with a secret shows it by HTTP Basic (2.3.1)."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect_uri, "code_verifier": verifier}
        client_id, secret = self._section.client_id, self._secret
        basic = None if secret is None else (client_id, secret)
        form |= {} if basic else {"client_id": client_id}
        address = await self._discovery.endpoint("token_endpoint")
        # The fetcher may send it twice, when a kept connection ends: then the provider refuses the second, and nobody comes in.
        answer = await self._fetcher.ask(address, basic=basic, form=form)
        match answer.status, answer.document:
            case 200, dict(tokens):
                return tokens
            case 400, _:
                return LoginRefusal.CODE
            case 401, _:
                return LoginRefusal.CLIENT
        raise FetchError(f"{address}: status {answer.status}, or no JSON object")

    async def _verified(self, text: str, expected: Expected, now: float) -> Mapping[str, Any] | LoginRefusal:
        token = jwt.read(text)
        if isinstance(token, Reason):
            return LoginRefusal.MALFORMED
        if refused := refusal(token, expected, now):
            return refused
        key = key_of(token, await self._current_keys())
        if key is None and (reload := self._keys.reload_for_unknown_key()) is not None:
            key = key_of(token, await reload)
        if key is None:
            return LoginRefusal.KEY
        return token.claims if key.verifies(token.signing_input, token.signature) is True else LoginRefusal.SIGNATURE

    async def _current_keys(self) -> KeySet:
        if self._keys.age > KEY_AGE:
            with contextlib.suppress(Unavailable):
                return await self._keys.load()
        keys = self._keys.keys()
        if keys is None:
            raise Unavailable(Reason.KEY_SET_UNAVAILABLE)
        return keys

    async def _with_userinfo(self, claims: Mapping[str, Any], access_token: object) -> Mapping[str, Any] | LoginRefusal:
        """Add what userinfo says of the address of the same user (OpenID Connect Core 5.3.2); nothing where there is none."""
        if not isinstance(access_token, str) or "userinfo_endpoint" not in await self._discovery.document():
            return claims
        address = await self._discovery.endpoint("userinfo_endpoint")
        answer = await self._fetcher.ask(address, bearer=access_token)
        match answer.status, answer.document:
            case 200, dict(told) if told.get("sub") == claims["sub"]:
                return {**claims, **{name: told[name] for name in (self._section.email_claim, EMAIL, VERIFIED) if name in told}}
            case 200, dict():
                return LoginRefusal.OTHER_USER
            case 401 | 403, _:
                return claims
        raise FetchError(f"{address}: status {answer.status}, or no JSON object")

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Tell of a provider that cannot be asked; its addresses are read anew before the next time."""
        try:
            yield
        except FetchError as error:
            self._discovery.expire()
            _log.warning("provider of logins not asked", extra={"issuer": self._section.issuer, "cause": str(error)[:MAX_CAUSE]})
            raise Unavailable(Reason.ISSUER_UNAVAILABLE) from error


def _fields(query: str) -> dict[str, str] | None:
    """Return the fields of an answer, of which none may come twice; None for anything else."""
    if not query.isascii() or len(query) > MAX_QUERY:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20)
    except ValueError:
        return None
    return fields if len(fields := dict(pairs)) == len(pairs) else None
