"""A decision that a running sidecar remembers: asked of its ops listener, as the configuration or a flag names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.addresses import Address, parse_address
from extauthz.config.loader import Configuration
from extauthz.envoy_config.reading import is_everywhere
from extauthz.errors import FetchError, NothingThere

TIMEOUT = 5.0
"""Seconds for the answer of a sidecar."""


async def remembered(configuration: Configuration, decision_id: str, ops: str | None) -> Mapping[str, Any]:
    """Return the record of a decision, with the fields of the decision log; raises FetchError, and ValueError for an address.

    `ops` is an address as server.ops is written, or begins with https:// or http://; without one, server.ops is asked.
    """
    base, socket = _base(configuration, ops)
    address = f"{base}/decisions?id={decision_id}"
    fetcher = _fetcher(configuration, socket)
    try:
        document = (await fetcher.get(address)).document
    except NothingThere as error:
        raise FetchError(f"{base} shows no decisions: is this the ops listener, and is it reached as /config has to be?") from error
    finally:
        await fetcher.close()
    decisions = document.get("decisions") if isinstance(document, dict) else None
    if not isinstance(decisions, list):
        raise FetchError(f"{base} answers with no list of decisions")
    found = [one for one in decisions if isinstance(one, dict) and one.get("decision_id") == decision_id]
    if not found:
        raise FetchError(f"{base} remembers no decision with this id: it keeps the newest ones only, and the log has the others")
    return found[0]


def _base(configuration: Configuration, ops: str | None) -> tuple[str, Path | None]:
    """Return what an address begins with, and the unix socket that is asked in place of its host."""
    if ops is not None and ops.startswith(("http://", "https://")):
        return ops.rstrip("/"), None
    server = configuration.settings.server
    at: Address | None = server.ops if ops is None else parse_address(ops)
    if at is None:
        raise ValueError("server.ops is null: name the listener with --ops")
    if at.path:
        return "http://localhost", Path(at.path)
    if is_everywhere(at):
        at = replace(at, host="::1" if ":" in at.host else "127.0.0.1")
    return f"{'https' if ops is None and server.ops_tls is not None else 'http'}://{at}", None


def _fetcher(configuration: Configuration, socket: Path | None) -> JsonFetcher:
    """Return a client that shows the certificate with which the console asks sidecars, where it is configured."""
    folder, console = configuration.file.parent, configuration.settings.console
    tls = console.sidecar_tls if console is not None and socket is None else None
    trust, shown = None, None
    if tls is not None and tls.certificate is not None and tls.key is not None:
        shown = folder / tls.certificate, folder / tls.key
    if tls is not None and tls.ca_file is not None:
        try:
            trust = (folder / tls.ca_file).read_bytes()
        except OSError as error:
            raise FetchError(f"console.sidecar_tls.ca_file: {error.strerror or error}") from error
    return JsonFetcher(timeout=TIMEOUT, unix_socket=socket, trust=trust, client_certificate=shown)
