"""JSON lines: the process log on standard error, one line per decision on standard output.

No token, no query and no header value is ever part of a line. A refused OAuth access token is told by the issuer and the key id
that it names and by the first 8 hex digits of its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from collections import deque
from typing import IO, Any

from pythonjsonlogger.json import JsonFormatter

from extauthz.core import jwt
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.model import Decision, Request
from extauthz.core.paths import Path, parse

MAX_PATH, MAX_METHOD, MAX_TARGET = 512, 32, 8 * 1024 + 1
MAX_SIGNED, MAX_CLAIM = 4 * 1024, 256
_log = logging.getLogger(__name__)
_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


def configure(stream: IO[str] | None = None) -> None:
    """Send the standard library's logging to one stream, a JSON object per line."""
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = JsonFormatter("{asctime}{levelname}{name}{message}", "%Y-%m-%dT%H:%M:%SZ", style="{", rename_fields=_NAMES)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("httpx2", "httpcore2", "alembic", "uvicorn", "asyncio", "grpc", "watchfiles"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class DecisionLog:
    """Takes a decision in a microsecond; a thread renders and writes later.

    A reader that stalls blocks that thread alone: the oldest lines beyond `capacity` are dropped, and `dropped` counts them. What
    waits holds nothing of the request but its method and path, and of a refused access token the part without its signature.
    """

    def __init__(self, stream: IO[str], *, capacity: int = 10_000, interval: float = 0.1) -> None:
        """Start the writing thread; `interval` is in seconds."""
        self._stream = stream
        self._capacity = capacity
        self._interval = interval
        self._lines: deque[_Entry] = deque()
        self._stop = threading.Event()
        self.dropped = 0
        self.written = 0
        self._thread = threading.Thread(target=self._write, name="decision-log", daemon=True)
        self._thread.start()

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        """Take one decision."""
        if len(self._lines) >= self._capacity:
            self.dropped += 1
            if not self._lines:
                return
            self._lines.popleft()
        now = time.time()  # noqa: TID251 - the line's own timestamp
        target = request.path[:MAX_TARGET].partition("?")[0]
        token = _refused_token(request) if decision.reason.status in (401, 503) else None
        self._lines.append((now, request.decision_id, request.method[:MAX_METHOD], target, decision, seconds, token))

    def close(self) -> None:
        """Write what is left, waiting a second at most."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _write(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self._interval)
            try:
                while self._lines:
                    self._stream.write(json.dumps(_line(*self._lines.popleft())) + "\n")
                    self.written += 1
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                # Nobody reads any more, and nobody will.
                self._capacity = 0
                return
            except OSError:
                # A disk that is full may have room again: one line is lost, the others wait.
                self.dropped += 1
                if not stopping:
                    _log.exception("decision log not written")


_Entry = tuple[float, str, str, str, Decision, float, tuple[str, str] | None]


def _refused_token(request: Request) -> tuple[str, str] | None:
    """Return the fingerprint of the access token and what of it was signed, which without the signature is no credential."""
    if request.header(AUTH_TYPE).lower() != "oauth":
        return None
    token = request.header(AUTHORIZATION).rpartition(" ")[2]
    if not token:
        return None
    signed = token.rpartition(".")[0]
    return hashlib.sha256(token.encode("latin-1")).hexdigest()[:8], signed if len(signed) <= MAX_SIGNED else ""


def _line(
    moment: float,
    decision_id: str,
    method: str,
    target: str,
    decision: Decision,
    seconds: float,
    token: tuple[str, str] | None,
) -> dict[str, Any]:
    identity = decision.identity
    fingerprint, signed = token or (None, "")
    unverified = jwt.read(f"{signed}.") if signed else None
    claimed = unverified if isinstance(unverified, jwt.Unverified) else None
    line = {
        "time": round(moment, 3),
        "decision": decision.outcome,
        "reason": decision.reason.value,
        "status": decision.reason.status,
        "decision_id": decision_id,
        "method": method or None,
        "path": _path(target) or None,
        "route": decision.route,
        "auth_type": identity.auth_type.value if identity else None,
        "actor": identity.actor if identity else None,
        "user": decision.user,
        "token_sha256": fingerprint,
        "token_issuer": _short(claimed.claims.get("iss")) if claimed else None,
        "token_key_id": _short(claimed.header.get("kid")) if claimed else None,
        "microseconds": round(seconds * 1e6),
    }
    return {name: value for name, value in line.items() if value is not None}


def _short(value: object) -> str | None:
    return value[:MAX_CLAIM] if isinstance(value, str) else None


def _path(target: str) -> str:
    raw = target.partition("#")[0]
    path = parse(raw)
    return (path.canonical if isinstance(path, Path) else raw)[:MAX_PATH]
