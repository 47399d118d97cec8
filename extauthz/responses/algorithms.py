"""What internal tokens are signed with (RFC 7518 3.1, RFC 8037 3.1)."""

from __future__ import annotations

ALGORITHMS = ("ES256", "EdDSA")
