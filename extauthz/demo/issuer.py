"""A local authorization server that issues access tokens as Okta's custom servers do."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID = "0oa1demo"
AUDIENCE = "api://default"


class DemoIssuer:
    """One signing key, its discovery and key documents as an ASGI application, and tokens for the asking."""

    def __init__(self, base: str) -> None:
        """Make a key; `base` is the address that this issuer is reached at."""
        self.issuer = f"{base}/oauth2/default"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._kid = secrets.token_urlsafe(16)

    def token(self, user: str, *, lifetime: int = 3600, **changes: Any) -> str:
        """Issue an access token that lives `lifetime` seconds; `changes` replace claims."""
        now = int(time.time())  # noqa: TID251 - a token is issued now
        claims = {
            "ver": 1,
            "jti": f"AT.{secrets.token_urlsafe(16)}",
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": user,
            "iat": now,
            "exp": now + lifetime,
            "cid": CLIENT_ID,
            "uid": "00u1demo",
            "scp": ["openid", "email"],
        }
        return jwt.encode(claims | changes, self._key, algorithm="RS256", headers={"kid": self._kid, "typ": None})

    def document(self, path: str) -> dict[str, Any] | None:
        """Return what stands at a path: discovery, keys, or nothing."""
        if path == "/oauth2/default/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/v1/keys"}
        if path == "/oauth2/default/v1/keys":
            public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
            return {"keys": [public | {"kid": self._kid, "use": "sig", "alg": "RS256"}]}
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer an HTTP request (ASGI)."""
        document = self.document(scope["path"])
        await respond(send, 404 if document is None else 200, document or {})


async def respond(send: Any, status: int, document: Any) -> None:
    """Send a JSON document (ASGI)."""
    body = json.dumps(document, indent=1).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
