"""Who runs a command, with which rights, on which store."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from extauthz.adapters.store.records import AuditKey, Change, StoredToken
from extauthz.adapters.store.rows import StoreError, check_peppers
from extauthz.adapters.store.rules import MAX_SOURCE, MAX_WHY
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import configuration
from extauthz.cli.output import now
from extauthz.cli.pepper import make_pepper
from extauthz.cli.terminal import echo
from extauthz.config.loader import Configuration
from extauthz.config.settings import TokensSection
from extauthz.core.act_as import address
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, TokenRecord, TokenText, fingerprint
from extauthz.issuing import Order, Role, Rules, issue, may, role_of

as_option = click.option(
    "--as",
    "email",
    metavar="EMAIL",
    help="Act with the role that `roles` gives this person; without it you are a super admin, named by your system user.",
)


class TokenId(click.ParamType[str]):
    """The public id of a token; what is longer may be a secret and is not repeated."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take up to 12 characters."""
        if len(value) > 12:
            self.fail("an id is the 12 letters and digits between the underscores of a token: give it alone", param, ctx)
        return str(value)


class Why(click.ParamType[str]):
    """A short text for the audit."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a printable line."""
        if not 1 <= len(value) <= MAX_WHY or not value.isprintable():
            self.fail(f"write 1 to {MAX_WHY} printable characters", param, ctx)
        return str(value)


class Session:
    """One command: its configuration, and who runs it with which role."""

    def __init__(self, config_file: Path, email: str | None = None) -> None:
        """Read the configuration; refuse somebody without a role."""
        self.loaded: Configuration = configuration.read(config_file)
        user = _system_user()
        self.role: Role = Role.SUPER_ADMIN
        self.actor = user
        if email is not None:
            self.actor, self.role = self._person(email)
        self._source = _source(user if email is not None else None)

    @property
    def tokens(self) -> TokensSection:
        """The section of issued tokens, which is switched on."""
        section = self.loaded.settings.tokens
        if section is None or not section.enabled:
            raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
        return section

    @property
    def rules(self) -> Rules:
        """What orders are measured by."""
        loaded = self.loaded
        return Rules(self.tokens.prefix, frozenset(loaded.settings.scopes), self.tokens.max_lifetime, loaded.policy.act_as)

    @property
    def prefixes(self) -> frozenset[str]:
        """The prefixes of tokens that count."""
        return frozenset({self.tokens.prefix, *self.tokens.accept_prefixes})

    def refusal(self, permission: AuthType) -> str | None:
        """Tell why the role may not change tokens of this permission, or None."""
        if may(self.role, permission):
            return None
        return f"{permission} needs a super admin, and {self.actor} is an admin: see roles.super_admins"

    def require(self, permission: AuthType, what: str) -> None:
        """Refuse what the role may not do to tokens of this permission."""
        refusal = self.refusal(permission)
        if refusal is not None:
            raise click.ClickException(f"{what}: {refusal}")

    def require_super_admin(self, what: str) -> None:
        """Refuse what concerns tokens of every permission at once."""
        if self.role is not Role.SUPER_ADMIN:
            raise click.ClickException(f"--as: {what} needs a super admin, and {self.actor} is an admin: see roles.super_admins")

    def change(self) -> Change:
        """Return who changes something, now, and from where."""
        return Change(now(), self.actor, self._source)

    @contextmanager
    def store(self, *, create: bool = False) -> Iterator[SqlTokenStore]:
        """Open the store; with `create` an embedded one is made if there is none."""
        place = self.loaded.store_place
        if place is None:
            raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
        with configuration.explained():
            password = self.loaded.store_password(os.environ)
        for warning in self.loaded.warnings:
            # Whoever stands on the way to the store gets what this command sends.
            if warning.path == "tokens.store":
                echo(f"warning: {warning}", err=True)
        try:
            store = SqlTokenStore(place, create=create, password=password, waiting=_waiting)
            try:
                if create and isinstance(place, Path) and store.revision() is None:
                    store.migrate()
                yield store
            finally:
                store.close()
        except StoreError as error:
            raise click.ClickException(str(error)) from error

    def peppers(self, store: SqlTokenStore, *, make: bool = False, to_revoke: bool = False) -> dict[str, bytes]:
        """Return the peppers, the newest first, and let the store be changed; with `make` the very first one is made.

        One that active tokens need must be there, except `to_revoke` them.
        """
        known = store.pepper_fingerprints()
        file = self.loaded.pepper_file()
        if make and file is not None and not file.exists() and not known:
            make_pepper(file)
            echo(f"Made the pepper {file}: back it up, apart from the store.", err=True)
        with configuration.explained():
            peppers = self.loaded.peppers(os.environ)
        missing = () if to_revoke else known.keys() - peppers.keys()
        check_peppers(known, peppers, {name: store.needing(name, now()) for name in missing})
        store.audit = AuditKey.of(*next(iter(peppers.items())))
        return peppers

    def audit_keys(self) -> dict[str, bytes]:
        """Return the keys of the audit's chain by pepper."""
        with configuration.explained():
            peppers = self.loaded.peppers(os.environ)
        return {name: AuditKey.of(name, pepper).key for name, pepper in peppers.items()}

    def make(self, order: Order, peppers: dict[str, bytes]) -> tuple[TokenText, TokenRecord, str]:
        """Make a token with the newest pepper: its text, its record and the fingerprint of the pepper; nothing is stored yet."""
        name, pepper = next(iter(peppers.items()))
        text, record = issue(order, self.rules, pepper_id=name, pepper=pepper, entropy=os.urandom(ENTROPY_BYTES))
        return text, record, fingerprint(pepper)

    def _person(self, email: str) -> tuple[str, Role]:
        who = address(email)
        if who is None:
            raise click.BadParameter("write one e-mail address", param_hint="--as")
        roles = self.loaded.settings.roles
        role = role_of(who, roles.admins, roles.super_admins)
        if role is None:
            raise click.ClickException(f"--as: {who} has no role: list the address in roles.admins or roles.super_admins")
        return who, role


def known(store: SqlTokenStore, token_id: str) -> StoredToken:
    """Return a token, or refuse its id."""
    record = store.get(token_id)
    if record is None:
        raise click.ClickException(f"no token has the id {token_id!r}; see: extauthz token list")
    return record


def _waiting(name: str) -> None:
    """Tell a person, or a log, what a command waits for; standard output stays what it is."""
    echo(f"waiting for the token store at {name}", err=True)


def _system_user() -> str:
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"os:{os.getuid()}"


def _source(user: str | None) -> str:
    """Tell the host and the terminal, and the system user where somebody else is named as the actor."""
    text = f"cli{f' of {user}' if user else ''} on {socket.gethostname()}"
    if sys.stdin is not None and sys.stdin.isatty():
        text += f", {os.ttyname(sys.stdin.fileno())}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MAX_SOURCE]
