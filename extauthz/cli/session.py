"""Who runs a command, with which rights, on which store."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from extauthz.adapters.store.rules import MAX_SOURCE, MAX_WHY
from extauthz.admin.administration import Administration, audit_keys, prefixes_of, rules_of
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import SYSTEM_ACTOR, Actor, Role, role_of
from extauthz.admin.token_requests import TokenRules
from extauthz.cli import configuration
from extauthz.cli.pepper_file import make_pepper
from extauthz.cli.terminal import echo
from extauthz.core.act_as import address
from extauthz.errors import StoreError

if TYPE_CHECKING:
    from extauthz.adapters.store.sql import SqlTokenStore
    from extauthz.config.loader import Configuration
    from extauthz.config.settings import TokensSection

T = TypeVar("T")

_FLAGS = {"actor": "--as: ", "user": "--all-of-user: ", "audit": "--audit: "}

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
        name, role = (user, Role.SUPER_ADMIN) if email is None else self._person(email)
        self.actor = Actor(name, role, _source(user if email is not None else None))

    @property
    def tokens(self) -> TokensSection:
        """The section of issued tokens, which is switched on."""
        section = self.loaded.settings.tokens
        if section is None or not section.enabled:
            raise click.ClickException("issued tokens are switched off: set tokens.enabled in the configuration")
        return section

    @property
    def rules(self) -> TokenRules:
        """What requests are measured by."""
        return rules_of(self.loaded, self.tokens)

    @property
    def prefixes(self) -> frozenset[str]:
        """The prefixes of tokens that count."""
        return prefixes_of(self.tokens)

    @contextmanager
    def administration(self, *, create: bool = False, make_pepper: bool = False) -> Iterator[Administration]:
        """Open the store; with `create` an embedded one is made if there is none, with `make_pepper` the very first pepper."""
        with self._store(create=create) as store:

            def read_peppers() -> Mapping[str, bytes]:
                if make_pepper:
                    self._make_pepper(store)
                return self.peppers()

            yield Administration(store, self.rules, self.prefixes, read_peppers)

    def peppers(self) -> Mapping[str, bytes]:
        """Read the peppers, the newest first."""
        with configuration.explained():
            return self.loaded.peppers(os.environ)

    def audit_keys(self) -> dict[str, bytes]:
        """Return the keys of the audit's chain by pepper."""
        return audit_keys(self.peppers())

    @contextmanager
    def _store(self, *, create: bool) -> Iterator[SqlTokenStore]:
        from extauthz.adapters.store.sql import SqlTokenStore

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

    def _make_pepper(self, store: SqlTokenStore) -> None:
        file = self.loaded.pepper_file()
        if file is not None and not file.exists() and not store.pepper_fingerprints() and make_pepper(file):
            echo(f"Made the pepper {file}: back it up, apart from the store.", err=True)

    def _person(self, email: str) -> tuple[str, Role]:
        who = address(email)
        if who is None:
            raise click.BadParameter("write one e-mail address", param_hint="--as")
        roles = self.loaded.settings.roles
        role = role_of(who, admins=roles.admins, super_admins=roles.super_admins, viewers=roles.viewers)
        if role is None:
            raise click.ClickException(f"--as: {who} has no role: list the address in roles.admins or roles.super_admins")
        return who, role


def unwrap(outcome: T | Refused, what: str = "") -> T:
    """Return what a use case did; end the command with what stands against it, behind the flag that it concerns."""
    if not isinstance(outcome, Refused):
        return outcome
    texts = [f"{_FLAGS.get(refusal.field, '')}{refusal.message}" for refusal in outcome.refusals]
    raise click.ClickException(f"{what}: {texts[0]}" if what else "\n".join(texts))


def _waiting(name: str) -> None:
    """Tell a person, or a log, what a command waits for; standard output stays what it is."""
    echo(f"waiting for the token store at {name}", err=True)


def _system_user() -> str:
    try:
        return f"{SYSTEM_ACTOR}{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"{SYSTEM_ACTOR}{os.getuid()}"


def _source(user: str | None) -> str:
    """Tell the host and the terminal, and the system user where somebody else is named as the actor."""
    text = f"cli{f' of {user}' if user else ''} on {socket.gethostname()}"
    if sys.stdin is not None and sys.stdin.isatty():
        text += f", {os.ttyname(sys.stdin.fileno())}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MAX_SOURCE]
