"""Addresses of clients."""

from __future__ import annotations

PEER, PROXY, CLIENT, LIE = "198.51.100.1", "198.51.100.2", "203.0.113.9", "6.6.6.6"
EXTERNAL = "x-envoy-external-address"
FORWARDED = "x-forwarded-for"
