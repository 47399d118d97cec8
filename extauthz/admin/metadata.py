"""What may be shown of a token, for people and programs; it holds no secret and no digest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from extauthz.core.tokens import TokenRecord, usable

_STORED = ("revoked_why", "rotated_from", "rotated_to", "last_used_at", "last_used_from")


def utc(seconds: int | None) -> str | None:
    """Write a time, in seconds since the epoch, in UTC (RFC 3339)."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def token_metadata(record: TokenRecord, at: int) -> dict[str, Any]:
    """Return the fields of a token at a time, ready for JSON; a StoredToken has more of them than a new record."""
    refusal = usable(record, at)
    facts = {name: getattr(record, name, None) for name in _STORED}
    return {
        "id": record.id,
        "description": record.description,
        "permission": record.permission.value,
        "user": record.user,
        "scopes": sorted(record.scopes),
        "status": refusal.value.removeprefix("token_") if refusal else "active",
        "created_at": utc(record.created_at),
        "created_by": record.created_by,
        "expires_at": utc(record.expires_at),
        "pepper_id": record.pepper_id,
        "revoked_at": utc(record.revoked_at),
        "revoked_by": record.revoked_by,
        **facts,
        "last_used_at": utc(facts["last_used_at"]),
    }
