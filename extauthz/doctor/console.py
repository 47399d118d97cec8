"""The admin console, as far as this machine and its files tell: packages, addresses, certificate, secret, roles, and the store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from extauthz.adapters.store import rights
from extauthz.adapters.store.sessions import accounts, is_genuine
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.adapters.store.sqlite_file import is_read_only
from extauthz.admin import keys
from extauthz.config.console import CALLBACK, PACKAGES, ConsoleSection
from extauthz.config.loader import Configuration
from extauthz.config.settings import RolesSection
from extauthz.doctor import files
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.errors import ConfigurationError, StoreError
from extauthz.transport.certificate_dates import read_chain
from extauthz.transport.tls import TlsFiles

_HOST = re.compile(r"https?://\[?([^\]/]+?)\]?(?::[0-9]+)?")
_NAMED = 3
"""Admin keys that a finding names."""
_NOBODY = "add one with 'extauthz console add-user EMAIL', or write console.oidc"


def look(configuration: Configuration, section: ConsoleSection, now: float) -> Iterator[Finding]:
    """Look at what needs no connection; `now` in seconds since the epoch."""
    yield _packages()
    folder = configuration.file.parent
    tls = None if section.tls is None else TlsFiles(folder / section.tls.certificate, folder / section.tls.key)
    if tls is not None:
        yield from files.certificate_files("console.tls", tls, now)
        yield files.secret_file("console.tls", tls.key)
    yield from _address(section, tls)
    yield roles(configuration.settings.roles)
    if section.oidc is not None:
        redirect = f"{section.origins(section.listen.port)[0]}{CALLBACK}"
        yield ok("console.redirect", f"the client of {section.oidc.issuer} needs this redirect URI: {redirect}")
        if section.oidc.client_secret is not None and section.oidc.client_secret.file is not None:
            yield files.secret_file("console.secret", folder / section.oidc.client_secret.file)


def _packages() -> Finding:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        advice = "pip install 'extauthz[console]', unless the console runs on another machine"
        return warning("console.packages", f"{', '.join(missing)} is missing: the console does not start here", advice)
    return ok("console.packages", f"{', '.join(PACKAGES)} are installed")


def _address(section: ConsoleSection, tls: TlsFiles | None) -> Iterator[Finding]:
    """Judge whether the name that browsers ask for is the one of the certificate; of a proxy the configuration's warning tells."""
    origin = section.origins(section.listen.port)[0]
    named = _HOST.fullmatch(origin)
    host = named[1] if named else ""
    if tls is not None:
        try:
            names = read_chain(tls.certificate)[0].names
        except (ValueError, IndexError):
            # Said above, with the file.
            return
        if not any(_is_for(name, host) for name in names):
            advice = f"get a certificate for {host}, or write console.public_url with a name that it has"
            yield problem("console.address", f"{tls.certificate} is for {', '.join(names) or 'nobody'}, not for {host}", advice)
            return
    yield ok("console.address", f"browsers reach it at {origin}")


def _is_for(name: str, host: str) -> bool:
    """Tell whether a name of a certificate is that of a host (RFC 6125 6.4.3: * stands for the first label alone)."""
    if name.startswith("*."):
        return name[2:].lower() == host.partition(".")[2] != ""
    return name.lower() == host


def roles(section: RolesSection) -> Finding:
    """Judge whether somebody may do something."""
    counts = {"viewers": len(section.viewers), "admins": len(section.admins), "super_admins": len(section.super_admins)}
    if not any(counts.values()):
        return problem(
            "console.roles", "nobody has a role: whoever logs in is sent away", "write an address into roles.super_admins"
        )
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    if not section.super_admins:
        advice = "write an address into roles.super_admins, unless this is meant so"
        return warning("console.roles", f"{text}: nobody may make GLOBAL tokens, or end sessions of others", advice)
    return ok("console.roles", text)


def store(configuration: Configuration, section: ConsoleSection, now: float, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look whether the account of the store may do what admins do, whether somebody can log in, and what admin keys may do.

    `now` is in seconds since the epoch.
    """
    place = configuration.store_place
    if place is None:
        yield problem("console.store", "issued tokens are off: the console has no store", "set tokens.enabled")
        return
    if isinstance(place, Path) and not place.exists():
        # Said by the check of the store. The console makes the file when it starts.
        return
    try:
        with contextlib.closing(SqlTokenStore(place, password=configuration.store_password(environment))) as opened:
            yield _rights(opened, place)
            yield _keys(opened, configuration.settings.roles, int(now))
            if section.has_local_accounts:
                yield _accounts(opened, configuration, section, environment)
    except (StoreError, ConfigurationError) as error:
        yield problem("console.store", str(error).replace("\n", "; "), "correct tokens.store, or do what this says")


def _rights(opened: SqlTokenStore, place: Path | str) -> Finding:
    if isinstance(place, Path) and is_read_only(place):
        advice = "let the user of the console write to the file and to its folder"
        return problem("console.store", f"{place} cannot be written to by this user", advice)
    if lacking := rights.missing(opened):
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        advice = "grant the role extauthz_admin to the account, or run this with the configuration of the console"
        return problem("console.store", f"the account of {opened.name} lacks {', '.join(lacking[:3])}{more}", advice)
    if rights.is_owner(opened):
        advice = "give the console an account of its own with the role extauthz_admin: who owns the tables can change the audit"
        return warning("console.store", f"the account of {opened.name} owns the tables", advice)
    return ok("console.store", f"{opened.name}: what admins do can be written")


def _keys(opened: SqlTokenStore, section: RolesSection, now: int) -> Finding:
    """Name the admin keys that were made for more than their makers may do now."""
    outliving = keys.outliving(opened, now, section)
    if not outliving:
        return ok("console.keys", "no admin key was made for more than its maker may do now")
    texts = [
        f"{each.id}: its maker {each.created_by} has "
        + ("no role any more" if keys.acting_role(each, section) is None else "a lower role now")
        for each in outliving[:_NAMED]
    ]
    more = f"; and {len(outliving) - _NAMED} more" if len(outliving) > _NAMED else ""
    advice = "revoke it with 'extauthz console key revoke ID' and make another one, or list the address in roles again"
    return warning("console.keys", f"{'; '.join(texts)}{more}", advice)


def _accounts(
    opened: SqlTokenStore, configuration: Configuration, console: ConsoleSection, environment: Mapping[str, str]
) -> Finding:
    """Judge whether an account of the console's own can log in, which one cannot that was written without a pepper."""
    section = configuration.settings.roles
    with_role = {*section.viewers, *section.admins, *section.super_admins}
    known = accounts(opened)
    peppers = configuration.peppers(environment) if known else {}
    useful = [each.email for each in known if each.email in with_role]
    genuine = [each.email for each in known if each.email in with_role and is_genuine(each, peppers)]
    if genuine:
        return ok("console.accounts", f"{len(genuine)} local accounts have a role")
    text = "no local account has a role" if known else "there is no local account"
    advice = "list its address in roles" if known else _NOBODY
    if useful:
        text = f"{useful[0]} was not written by this installation, nor was any other account with a role"
        advice = "set its password anew with 'extauthz console add-user EMAIL', after a look at who can write the store"
    if console.oidc is not None:
        return warning("console.accounts", f"{text}, although console.local_accounts is on", advice)
    return problem("console.accounts", f"{text}: nobody can log in", advice)
