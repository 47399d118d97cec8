"""Whose token it is: asked of the verifiers that serve, once, with a limit of time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from extauthz.config.loader import Configuration
from extauthz.config.secrets import Secrets
from extauthz.core.credentials import Credential, Kind
from extauthz.core.model import Identity, Reason
from extauthz.errors import Unavailable
from extauthz.ports import Clock, Verifier
from extauthz.runtime.build import VerifierSources, build_runtime
from extauthz.runtime.oauth import Issuers
from extauthz.runtime.store import open_store

PATIENCE = 20.0
"""Seconds for all that verifying one token takes, several requests to its issuer included."""

_log = logging.getLogger(__name__)


async def verified(
    configuration: Configuration, credential: Credential, environment: Mapping[str, str], *, clock: Clock
) -> Identity | Reason:
    """Verify a token as `serve` does: an issued one against the store, an access token by its provider.

    Raises StoreError and ConfigurationError, the latter for the secrets that this takes.
    """
    secrets = _secrets(configuration, credential.kind, environment)
    issuers = Issuers(clock)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(issuers.retire, None, secrets)
        outside = VerifierSources(peppers=secrets.peppers)
        if credential.kind is Kind.OAUTH:
            outside.providers = issuers.prepare(configuration, secrets)
        elif opened := await open_store(configuration, secrets, stack, clock=clock):
            outside.store, outside.feed = opened.reader, opened.feed
        runtime = build_runtime(configuration, outside, clock=clock).runtime
        return await evidence_of(runtime.verifiers, credential, clock, seconds=PATIENCE)


async def evidence_of(
    verifiers: Mapping[Kind, Verifier], credential: Credential, clock: Clock, *, seconds: float
) -> Identity | Reason:
    """Return what verifying a token comes to: whatever hinders it is the reason that a check would be answered with."""
    try:
        evidence = verifiers[credential.kind].verify(credential.token, clock.now())
        if isinstance(evidence, (Identity, Reason)):
            return evidence
        work = asyncio.ensure_future(evidence)
        done, _ = await asyncio.wait({work}, timeout=seconds)
        if not done:
            work.cancel()
            return Reason.CHECK_TIMEOUT
        return Reason.DRAINING if work.cancelled() else work.result()
    except Unavailable as unavailable:
        return unavailable.reason
    except Exception:  # noqa: BLE001 - a check is answered as well
        _log.exception("the token was not verified")
        return Reason.INTERNAL


def _secrets(configuration: Configuration, kind: Kind, environment: Mapping[str, str]) -> Secrets:
    """Read the secrets that verifying a token of this kind takes, and no other: whoever explains may not read them all."""
    if kind is Kind.OAUTH:
        return Secrets(client_secrets=configuration.client_secrets(environment), proxy_auth=configuration.proxy_auth(environment))
    return Secrets(peppers=configuration.peppers(environment), store_password=configuration.store_password(environment))
