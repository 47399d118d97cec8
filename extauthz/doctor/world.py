"""What the sidecar uses while it serves: the token store, the issuers, and its own listeners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import Answer, JsonFetcher
from extauthz.adapters.oauth.introspection import endpoint_of
from extauthz.adapters.oauth.published_keys import descriptions, usable_keys
from extauthz.adapters.store.rows import check_peppers
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.addresses import Address
from extauthz.config.loader import Configuration
from extauthz.config.oauth import ProviderEntry
from extauthz.config.openid import other_discovery
from extauthz.config.settings import ServerSection
from extauthz.config.wording import counted
from extauthz.core.providers import ProviderRules, Verification
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.envoy_config.reading import is_everywhere
from extauthz.errors import ConfigurationError, FetchError, ProxyRefusal, StoreError
from extauthz.ports import Clock

STORE_DIFFERENCE = 1.0
"""Seconds that the store's clock may differ: expiry is judged here, and written there."""
ISSUER_DIFFERENCE = 5.0
"""Seconds that an issuer's clock may differ; its Date has whole seconds, and its answer takes a while."""
PATIENCE = 2.0

_CLOCK_ADVICE = "let NTP set the clock of this machine: expiry of tokens is judged by it, and nbf and iat have `leeway` only"


def store(configuration: Configuration, clock: Clock, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the token store: that it can be read, its schema, its clock, and that no pepper is missing."""
    place, tokens = configuration.store_place, configuration.settings.tokens
    if place is None or tokens is None:
        yield ok("store", "issued tokens are off")
        return
    if isinstance(place, Path):
        try:
            place.stat()
        except FileNotFoundError:
            yield problem("store", f"{place} does not exist", "make it with 'extauthz store migrate' or 'extauthz token create'")
            return
        except OSError as error:
            closed = f"{place} cannot be reached ({error.strerror or error})"
            yield problem("store", closed, "run this as the user of the sidecar, and let that user enter the folder")
            return
    try:
        password = configuration.store_password(environment)
        token_store = SqlTokenStore(place, password=password)
    except (ConfigurationError, StoreError) as error:
        yield problem("store", _one_line(error), "correct tokens.store or tokens.store_password")
        return
    with contextlib.closing(token_store):
        try:
            now = clock.now()
            status = token_store.status(int(now))
            yield ok("store", f"{token_store.name}: schema {status.revision}, {counted(status.active, 'active token')}")
            store_time = token_store.clock()
            if store_time is not None:
                # Ours before and after the question: a slow answer is no difference.
                yield clocks("store.clock", token_store.name, store_time, (now, clock.now()), most=STORE_DIFFERENCE)
            peppers, digests = configuration.peppers(environment), token_store.pepper_fingerprints()
            check_peppers(digests, peppers, {name: token_store.needing(name, int(now)) for name in digests.keys() - peppers.keys()})
            yield ok("store.peppers", f"{', '.join(peppers)}: every active token has its pepper")
        except StoreError as error:
            yield problem("store", str(error), "do what this says; see docs/tokens.md")
        except ConfigurationError as error:
            yield problem("store.peppers", _one_line(error), "restore it from its backup: without it no issued token verifies")


def clocks(name: str, where: str, other: float, own: tuple[float, float], *, most: float) -> Finding:
    """Compare the clock of another machine with ours before and after the question, all in seconds since the epoch."""
    before, after = own
    difference = max(before - other, other - after, 0.0)
    if difference > most:
        return warning(name, f"the clock of {where} differs from ours by {difference:.1f} s", _CLOCK_ADVICE)
    return ok(name, f"the clock of {where} agrees with ours within {most:g} s")


async def issuers(configuration: Configuration, clock: Clock, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at what each issuer offers; no token is sent."""
    oauth = configuration.settings.oauth
    if oauth is None or not oauth.enabled:
        return [ok("issuer", "OAuth access tokens are off")]
    try:
        trust = configuration.files.read(configuration.file.parent / oauth.ca_file) if oauth.ca_file else None
        auth = configuration.proxy_auth(environment or {})
        fetcher = JsonFetcher(proxy=oauth.proxy.url if oauth.proxy else None, proxy_auth=auth, trust=trust)
    except ConfigurationError as error:
        return [problem("issuer", _one_line(error), "correct oauth.proxy")]
    except (FetchError, OSError) as error:
        return [problem("issuer", f"{oauth.ca_file}: {error}", "correct oauth.ca_file")]
    try:
        pairs = zip(oauth.of_each_tenant, configuration.providers, strict=True)
        results = await asyncio.gather(*(_issuer(entry, rules, fetcher, clock) for entry, rules in pairs))
    finally:
        await fetcher.close()
    return [finding for findings in results for finding in findings]


async def _issuer(entry: ProviderEntry, rules: ProviderRules, fetcher: JsonFetcher, clock: Clock) -> list[Finding]:
    discovery = Discovery(rules.issuer, rules.discovery, fetcher, clock=clock, other=other_discovery(rules))
    name, findings = f"issuer.{rules.name}", []
    uris = {
        Verification.JWKS: entry.jwks_uri,
        Verification.TOKENINFO: entry.tokeninfo_uri,
        Verification.INTROSPECTION: entry.introspection_uri,
        Verification.USERINFO: entry.userinfo_uri,
    }
    for method in sorted({rules.verification} | ({Verification.USERINFO} if rules.userinfo else set())):
        try:
            member, fixed = ("jwks_uri", None) if method is Verification.JWKS else endpoint_of(method)
            address = uris[method] or fixed or await discovery.endpoint(member)
            before = clock.now()
            if method is Verification.JWKS:
                answer = await fetcher.get(address)
                findings.append(_keys(name, rules, address, answer.document))
            else:
                answer = await fetcher.ask(address)
                findings.append(_endpoint(name, method, address, answer))
            issuer_time = _seconds(answer.date)
            if issuer_time is not None:
                # Whole seconds, cut off.
                times = (before - 1.0, clock.now())
                findings.append(clocks(f"{name}.clock", rules.issuer, issuer_time, times, most=ISSUER_DIFFERENCE))
        except ProxyRefusal as error:
            advice = f"correct user and password of oauth.proxy; {_meanwhile(method)}"
            findings.append(problem(name, f"{method}: {error}", advice))
        except FetchError as error:
            advice = f"look at the network, oauth.proxy and oauth.ca_file; {_meanwhile(method)}"
            findings.append(problem(name, f"{method}: {error}", advice))
    return findings


def _meanwhile(method: Verification) -> str:
    """Say what becomes of tokens while an issuer cannot be asked."""
    if method is Verification.JWKS:
        return "a sidecar that has its keys goes on with them for oauth.max_key_age, one that has none answers its tokens with 503"
    return "tokens that a sidecar does not remember get 503 until then"


def _keys(name: str, rules: ProviderRules, address: str, document: Any) -> Finding:
    try:
        keys, unused = usable_keys(document, rules.provider.algorithms, uses=rules.provider.key_uses)
    except ValueError as error:
        return problem(name, f"{address}: {error}", "compare jwks_uri with the issuer's discovery document")
    others = f"; left out: {'; '.join(descriptions(unused))}" if unused else ""
    if not keys:
        algorithms = ", ".join(sorted(rules.provider.algorithms))
        advice = "compare issuer and jwks_uri with the provider's settings"
        return problem(name, f"{address} has no key for {algorithms}{others}", advice)
    return ok(name, f"{address}: {counted(len(keys), 'key')}{others}")


def _endpoint(name: str, method: Verification, address: str, answer: Answer) -> Finding:
    """Judge the answer to a question without a token: that there is one, and that it comes from the right place."""
    if answer.status >= 500 or answer.status in (404, 410):
        advice = f"compare {method}_uri with the provider's settings; if it is right, the provider has a fault"
        return problem(name, f"{method} {address} answers with status {answer.status}", advice)
    return ok(name, f"{method} {address} answers (status {answer.status} without a token)")


async def listeners(server: ServerSection) -> list[Finding]:
    """Look whether the sidecar runs here, and is ready; that it does not run is no problem."""
    findings, workers = [], server.addresses
    silent = [str(address) for address in workers if not await listens(address)]
    if not silent:
        findings.append(ok("server.listen", f"somebody listens at {', '.join(map(str, workers))}"))
    elif len(silent) == len(workers):
        findings.append(ok("server.listen", f"nobody listens at {', '.join(silent)}: the sidecar does not run here"))
    else:
        findings.append(problem("server.listen", f"nobody listens at {', '.join(silent)}", "look at the log: a worker is missing"))
    if server.ops is None:
        findings.append(warning("server.ops", "there are no metrics and no readiness", "write server.ops: 127.0.0.1:9090"))
        return findings
    if not server.ops.is_local and (server.ops_tls is None or server.ops_tls.client_ca is None):
        advice = "listen on loopback, or let the network keep others out: it tells metrics and readiness"
        findings.append(warning("server.ops", f"{server.ops} can be reached by other machines", advice))
    if len(silent) < len(workers) and server.ops_tls is None:
        findings.append(await _readiness(server.ops))
    return findings


async def _readiness(ops: Address) -> Finding:
    """Ask the sidecar, over loopback, whether it is ready."""
    host = "localhost" if ops.path else "127.0.0.1" if is_everywhere(ops) else ops.host
    address = f"http://{Address(host=host, port=ops.port or 80)}/readyz"
    fetcher = JsonFetcher(timeout=PATIENCE, unix_socket=Path(ops.path) if ops.path else None)
    try:
        answer = await fetcher.ask(address)
    except FetchError as error:
        return warning("server.ops", str(error), "if the sidecar runs, look at its log; other hosts than loopback are not asked")
    finally:
        await fetcher.close()
    if answer.status != 200:
        advice = "look at `parts` in this document, and at the log"
        return problem("server.ops", f"{address} answers with status {answer.status}: not ready", advice)
    details = answer.document.get("details") if isinstance(answer.document, dict) else None
    unmet = [one for one in details if isinstance(one, dict) and one.get("met") is False] if isinstance(details, list) else []
    if unmet:
        text = "; ".join(" ".join(str(one[key]) for key in ("message", "issuer") if key in one) for one in unmet)
        return warning("server.ops", f"{address}: ready, but this does not hold: {text}", "look at the log for the cause")
    return ok("server.ops", f"{address}: ready")


async def listens(address: Address) -> bool:
    """Tell whether somebody takes connections at an address."""
    try:
        async with asyncio.timeout(PATIENCE):
            connecting = (
                asyncio.open_unix_connection(address.path) if address.path else asyncio.open_connection(address.host, address.port)
            )
            _, writer = await connecting
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _one_line(error: ConfigurationError | StoreError) -> str:
    return "; ".join(map(str, error.problems)) if isinstance(error, ConfigurationError) else str(error)
