"""Pages from templates, and the files beside them, whose names hold a hash of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from extauthz.admin.rights import Role
from extauthz.config.wording import counted

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}
_UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60))

PAGES = (
    ("/", "Overview"),
    ("/tokens", "Client tokens"),
    ("/settings/oauth", "OAuth"),
    ("/routes", "Routes"),
    ("/explain", "Explain"),
    ("/what-if", "What if"),
    ("/activity", "Activity"),
    ("/audit", "Audit"),
    ("/api", "API"),
)
SUPER_ADMIN_PAGES = (("/keys", "Admin keys"), ("/sessions", "Sessions"))
ROLE_NAMES = {Role.VIEWER: "viewer", Role.ADMIN: "admin", Role.SUPER_ADMIN: "super admin"}


@cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Return content and type of each file by its path, `<hash>/<name>`."""
    files = {}
    for file in (resources.files("extauthz.console") / "static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            files[f"{hashlib.sha256(content).hexdigest()[:12]}/{file.name}"] = (content, kind)
    return files


@cache
def static_path(name: str) -> str:
    """Return where a file is served; raises KeyError for none."""
    return next((f"/static/{path}" for path in static_files() if path.endswith(f"/{name}")), None) or _missing(name)


async def serve_static(request: Request) -> Response:
    """Answer with a file, which never changes under its name."""
    content, kind = static_files().get(request.path_params["path"], (b"", ""))
    if not kind:
        return PlainTextResponse("There is no such file.\n", 404)
    return Response(content, media_type=kind, headers=_IMMUTABLE)


def moment(seconds: int | None) -> str:
    """Write a time to the minute, in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def day(seconds: int) -> str:
    """Write a day, in UTC, as people say it."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at.day} {at:%B %Y}"


def machine_time(seconds: int) -> str:
    """Write a time for the attribute `datetime`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasting(seconds: int) -> str:
    """Write a length of time in its largest unit: "3 days", "1 second"."""
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds >= length), ("second", 1))
    count = max(seconds, 0) // length
    return f"{count} {unit}{'' if count == 1 else 's'}"


def distance(seconds: int, now: int) -> str:
    """Write how far a time is from now: "in 3 days", "2 hours ago", "just now"."""
    difference = abs(seconds - now)
    if difference >= _UNITS[-1][1]:
        return f"in {lasting(difference)}" if seconds > now else f"{lasting(difference)} ago"
    return "just now" if seconds <= now else "in less than a minute"


def pages_of(visitor: Any) -> list[tuple[str, str]]:
    """Return path and name of each page that a visitor may open."""
    return [*PAGES, *(SUPER_ADMIN_PAGES if visitor.role is Role.SUPER_ADMIN else ())]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("extauthz.console"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "day": day, "machine_time": machine_time}
    environment.globals |= {
        "counted": counted,
        "static": static_path,
        "distance": distance,
        "lasting": lasting,
        "pages_of": pages_of,
        "role_names": ROLE_NAMES,
    }
    return environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return the text of a page; raises jinja2.UndefinedError when a value is missing."""
    return _environment().get_template(template).render(values)


def _missing(name: str) -> str:
    raise KeyError(name)
