"""What the admin console talks to: its own port, the provider of logins, and the sidecars that it shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from extauthz import __version__
from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher, TextFetcher
from extauthz.addresses import Address
from extauthz.config.console import ConsoleSection, LoginSection, SidecarTlsSection
from extauthz.config.document import items, mapping
from extauthz.config.loader import Configuration
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.doctor.world import PATIENCE, listens
from extauthz.envoy_config.reading import is_everywhere
from extauthz.errors import FetchError
from extauthz.ports import Clock
from extauthz.telemetry.conditions import ConditionKey

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
UNMET = {
    ConditionKey.CONFIGURATION_CURRENT: (
        "the files that the console reads have an error, and it goes on with what counted before",
        "correct the line that its log names",
    ),
    ConditionKey.RESTART_NOT_NEEDED: ("a changed key waits for a restart of the console", "restart the console: it keeps sessions"),
    ConditionKey.CERTIFICATE_CURRENT: (
        "the console does not take the certificate of console.tls, and shows the one of before",
        "put a certificate there that is not over, with its own unencrypted key",
    ),
}
"""What is found where a condition of the console is not met, and what to do."""
_NO_TIME = (
    "let the provider put auth_time into the ID token, or write console.oidc.reauthentication: confirmation, which proves less "
    "(docs/console-login.md)"
)
MAX_PAGE_BYTES = 8 * 1024 * 1024
_UNIX = "unix://"
_VERSION = re.compile(r'^extauthz_build_info\{(?:[^}]*,)?version="([^"]*)"', re.MULTILINE)


async def port(section: ConsoleSection) -> Finding:
    """Look who listens where the console does; that nobody does is no problem."""
    name, at = "console.listen", section.listen
    local = _local(at)
    if not await listens(local):
        return ok(name, f"nobody listens at {at}: the console does not run here")
    if section.tls is not None:
        return ok(name, f"somebody listens at {at}") if section.ops is None else await _readiness(at, section.ops)
    fetcher, taken = TextFetcher(timeout=PATIENCE, plain_http=True), "stop that program, or write another port into console.listen"
    try:
        alive, ready = [await fetcher.ask(f"http://{local}{path}") for path in ("/healthz", "/readyz")]
    except FetchError as error:
        return problem(name, f"somebody else listens at {at}: {error}", taken)
    finally:
        await fetcher.close()
    if (alive.status, alive.document) != (200, "ok\n"):
        return problem(name, f"somebody else listens at {at}: /healthz answers with status {alive.status}", taken)
    if ready.status != 200:
        text = f"the console at {at} is not ready: /readyz answers with status {ready.status}"
        return problem(name, text, "look at its log, and whether the token store answers")
    return ok(name, f"the console answers at {at}, and is ready")


async def _readiness(at: Address, ops: Address) -> Finding:
    """Ask the ops listener of a console that speaks TLS to browsers, whose name this machine may not resolve."""
    fetcher = JsonFetcher(timeout=PATIENCE, plain_http=True)
    try:
        answer = await fetcher.ask(f"http://{_local(ops)}/readyz")
    except FetchError as error:
        text = f"somebody listens at {at}, and console.ops does not answer: {error}"
        return warning("console.listen", text, "look whether it is the console, or another program")
    finally:
        await fetcher.close()
    if answer.status != 200:
        text = f"the console at {at} is not ready: /readyz of {ops} answers with status {answer.status}"
        return problem("console.listen", text, "look at its log, and whether the token store answers")
    return ok("console.listen", f"the console answers at {at}, and is ready")


async def conditions(section: ConsoleSection) -> list[Finding]:
    """Repeat what a console that runs here says of its files; what cannot be read as that is judged by `port`."""
    if section.ops is None:
        return []
    fetcher = JsonFetcher(timeout=PATIENCE, plain_http=True)
    try:
        answer = await fetcher.ask(f"http://{_local(section.ops)}/readyz")
    except FetchError:
        return []
    finally:
        await fetcher.close()
    details = items(mapping(answer.document).get("details"))
    unmet = [each.get("key") for each in map(mapping, details) if each.get("met") is False]
    return [warning("console.files", *texts) for key, texts in UNMET.items() if key in unmet]


def _local(at: Address) -> Address:
    """Return where this machine reaches a listener of its own."""
    return Address(host="127.0.0.1" if is_everywhere(at) else at.host, port=at.port)


async def provider(configuration: Configuration, section: LoginSection, clock: Clock) -> list[Finding]:
    """Look at the discovery document of the provider of logins: that it is there, its issuer equal, and its endpoints named."""
    name = "console.oidc"
    try:
        trust = configuration.files.read(configuration.file.parent / section.ca_file) if section.ca_file else None
        fetcher = JsonFetcher(trust=trust)
    except (FetchError, OSError, ValueError) as error:
        return [problem(name, f"{section.ca_file}: {error}", "correct console.oidc.ca_file")]
    discovery = Discovery(section.issuer, f"{section.issuer.rstrip('/')}/.well-known/openid-configuration", fetcher, clock=clock)
    try:
        for endpoint in ENDPOINTS:
            await discovery.endpoint(endpoint)
        document = await discovery.document()
    except FetchError as error:
        advice = "compare console.oidc.issuer with the issuer in that document, character by character; until then nobody logs in"
        return [problem(name, str(error), advice)]
    finally:
        await fetcher.close()
    found = [ok(name, f"{section.issuer} has a discovery document of that name, with {', '.join(ENDPOINTS)}")]
    # OpenID Connect Discovery 3: the list may leave claims out, and may be missing.
    claims = document.get("claims_supported")
    if section.reauthentication == "auth_time" and isinstance(claims, list) and "auth_time" not in claims:
        text = f"the document of {section.issuer} lists no claim auth_time: then what needs a fresh login is refused"
        found.append(warning(name, text, _NO_TIME))
    return found


async def sidecars(configuration: Configuration, section: ConsoleSection) -> list[Finding]:
    """Look whether the sidecars of the list answer, and are of this version."""
    if not section.sidecars and section.prometheus is None:
        advice = "write console.sidecars or console.prometheus: without them activity stays empty"
        return [warning("console.sidecars", "no sidecar is named, and no Prometheus", advice)]
    found = await asyncio.gather(*(_version(configuration, name, section.sidecar_tls) for name in section.sidecars))
    return [*_judged(dict(zip(section.sidecars, found, strict=True)))]


def _judged(answers: dict[str, str | FetchError]) -> Iterator[Finding]:
    for name, answer in answers.items():
        if isinstance(answer, FetchError):
            advice = "start it, or correct console.sidecars and console.sidecar_tls; pages say meanwhile that it does not answer"
            yield problem("console.sidecars", str(answer), advice, where=name)
        elif answer != __version__:
            advice = "bring both to one version: sidecars of another one may not know all that the console shows"
            yield warning("console.sidecars", f"has version {answer}, and this is {__version__}", advice, where=name)
        else:
            yield ok("console.sidecars", f"answers, and has version {answer}", where=name)


async def _version(configuration: Configuration, name: str, tls: SidecarTlsSection | None) -> str | FetchError:
    """Return the version that the metrics of a sidecar name, or why there is none."""
    socket = Path(name.removeprefix(_UNIX)) if name.startswith(_UNIX) else None
    try:
        fetcher = _fetcher(configuration.file.parent, socket, tls if socket is None else None)
    except (FetchError, OSError) as error:
        return FetchError(f"console.sidecar_tls: {error}")
    try:
        answer = await fetcher.get(f"{name if socket is None else 'http://localhost'}/metrics")
    except FetchError as error:
        return error
    finally:
        await fetcher.close()
    version = _VERSION.search(str(answer.document))
    return version[1] if version else FetchError("/metrics is not that of a sidecar")


def _fetcher(folder: Path, socket: Path | None, tls: SidecarTlsSection | None) -> TextFetcher:
    trust = shown = None
    if tls is not None:
        trust = (folder / tls.ca_file).read_bytes() if tls.ca_file else None
        shown = (folder / tls.certificate, folder / tls.key) if tls.certificate and tls.key else None
    return TextFetcher(
        timeout=PATIENCE,
        trust=trust,
        unix_socket=socket,
        max_bytes=MAX_PAGE_BYTES,
        plain_http=True,
        client_certificate=shown,
    )
