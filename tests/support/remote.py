"""Issuers that are asked about tokens, in memory, with the answers that the real ones give."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from tests.support.idp_fixtures import overlaid
from tests.support.world import NOW, Answer, World, check_request, oauth

GOOGLE = "https://accounts.google.com"
GOOGLE_CLIENT = "123456789012-acme.apps.googleusercontent.com"
GOOGLE_USER = "110248495921238986420"
GOOGLE_SCOPES = "https://www.googleapis.com/auth/userinfo."
OKTA_ORG = "https://acme.okta.com"
OKTA_CLIENT = "0oa1example"
OKTA_USER = "00u1example"
ONELOGIN = "https://acme.onelogin.com/oidc/2"
ONELOGIN_CLIENT = "ed6dd790-0000-0136-df57-0a163e67b84c140139"
ONELOGIN_USER = "36343940"

Told = Mapping[str, Any] | Reason | Unavailable
"""What an issuer says of a token: members of an answer, a refusal, or that it cannot be reached."""


class Remote:
    """An issuer that answers from a table; what does not stand there gets the answer `otherwise`.

    `asked` are all tokens that it got to see, in order, and `known` whether each of them was said to have been good. While `go` is
    not set, answers are held back; they are read from the table when they are given. With `shut` every question is turned away at
    once.
    """

    def __init__(self, answers: Mapping[str, Told] | None = None, *, otherwise: Told = Reason.TOKEN_INACTIVE) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.asked: list[str] = []
        self.known: list[bool] = []
        self.shut = False
        self.go = asyncio.Event()
        self.go.set()

    def ask(self, token: str, *, is_known: bool = False) -> Coroutine[None, None, Mapping[str, Any] | Reason]:
        """Note the token, then answer."""
        self.asked.append(token)
        self.known.append(is_known)
        if self.shut:
            raise Unavailable(Reason.OVERLOADED)
        return self._answer(token)

    async def _answer(self, token: str) -> Mapping[str, Any] | Reason:
        await asyncio.sleep(0)
        await self.go.wait()
        told = self.answers.get(token, self.otherwise)
        if isinstance(told, Unavailable):
            raise Unavailable(told.reason)
        return told


async def check(world: World, token: str, line: str = "POST /search", **headers: str) -> Answer:
    """Answer a request with an OAuth token, however long it takes."""
    method, _, path = line.partition(" ")
    answer = world.authorizer.check(check_request(method, path, oauth(token, **headers).items()))
    data = answer if isinstance(answer, bytes) else await answer
    return Answer(pb.CheckResponse.FromString(data), world.recorder.decisions[-1])


def changed(genuine: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with changes; None removes one."""
    return {name: value for name, value in {**genuine, **changes}.items() if value is not None}


def tokeninfo(**changes: Any) -> dict[str, Any]:
    """Return what Google's tokeninfo says of a genuine access token: strings all of them."""
    ours = {
        "azp": GOOGLE_CLIENT,
        "aud": GOOGLE_CLIENT,
        "sub": GOOGLE_USER,
        "exp": str(NOW + 3543),
        "email": "Ana@acme.com",
    }
    return overlaid("google_tokeninfo_shape", ours, changes)


def google_userinfo(**changes: Any) -> dict[str, Any]:
    """Return what Google's userinfo says of a Workspace account."""
    genuine = {"sub": GOOGLE_USER, "name": "Ana", "email": "ana@acme.com", "email_verified": True, "hd": "acme.com"}
    return changed(genuine, changes)


def okta_org_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of an access token of Okta's org server, which has the members of one of a custom server."""
    ours = {
        "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "iss": OKTA_ORG,
        "aud": OKTA_ORG,
        "sub": "ana@acme.com",
        "iat": NOW - 60,
        "exp": NOW + 3600,
        "cid": OKTA_CLIENT,
        "uid": OKTA_USER,
    }
    return overlaid("okta_access_token_claims", ours, changes)


def okta_userinfo(**changes: Any) -> dict[str, Any]:
    """Return what the org server's userinfo says; its `sub` is the `uid` of the token."""
    genuine = {
        "sub": OKTA_USER,
        "name": "Ana",
        "preferred_username": "ana@acme.com",
        "email": "Ana@acme.com",
        "email_verified": True,
        "zoneinfo": "Europe/Berlin",
        "updated_at": NOW - 86400,
    }
    return changed(genuine, changes)


def okta_introspection(**changes: Any) -> dict[str, Any]:
    """Return what the org server's introspection says of an active token."""
    genuine = {
        "active": True,
        "scope": "openid email",
        "username": "Ana@acme.com",
        "exp": NOW + 3600,
        "iat": NOW - 60,
        "sub": "ana@acme.com",
        "aud": OKTA_ORG,
        "iss": OKTA_ORG,
        "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "token_type": "Bearer",
        "client_id": OKTA_CLIENT,
        "uid": OKTA_USER,
    }
    return changed(genuine, changes)


def onelogin_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a OneLogin access token, which name no address."""
    ours = {
        "jti": "Fk7jRKmcTYyeA0mP4KAZX",
        "sub": ONELOGIN_USER,
        "iss": ONELOGIN,
        "iat": NOW - 60,
        "exp": NOW + 3540,
        "aud": ONELOGIN_CLIENT,
    }
    return overlaid("onelogin_access_token_claims", ours, changes)


def onelogin_userinfo(**changes: Any) -> dict[str, Any]:
    """Return what OneLogin's userinfo says."""
    genuine = {"sub": ONELOGIN_USER, "email": "Ana@acme.com", "preferred_username": "ana", "name": "Ana", "groups": ["staff"]}
    return changed(genuine, changes)
