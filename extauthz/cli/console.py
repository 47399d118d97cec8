"""`extauthz console`: the admin console, and who uses it."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from extauthz.admin.metadata import utc
from extauthz.admin.outcomes import Refused
from extauthz.cli import configuration
from extauthz.cli.console_key import key
from extauthz.cli.output import ask_password, confirm, json_option, now, write_json, yes_option
from extauthz.cli.rendering import Column, Fit, write_table
from extauthz.cli.session import Session, as_option, unwrap
from extauthz.cli.terminal import echo
from extauthz.errors import ListenError

_COLUMNS = (Column("address", fit=Fit.WRAP), Column("created", need=1), Column("created by", need=2, fit=Fit.WRAP))


@click.group("console", invoke_without_command=True)
@configuration.option
@click.pass_context
def command(context: click.Context, config_file: Path) -> None:
    """Serve the admin console until SIGTERM, or manage who uses it.

    It is a process of its own, at `console.listen`: pages for people, and the HTTP API under /api/v1 for programs.

    Example: extauthz console --config config/extauthz.yaml
    """
    if context.invoked_subcommand is None:
        _serve(config_file)


def _serve(config_file: Path) -> None:
    from extauthz.config.console import PACKAGES

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"{', '.join(missing)} is missing: install extauthz with the extra: pip install 'extauthz[console]'"
        )
    from extauthz.adapters import process_log
    from extauthz.console import serving
    from extauthz.serve.certificate_warnings import certificate_warnings

    process_log.configure()
    session = Session(config_file)
    for warning in certificate_warnings(session.loaded, now()):
        logging.getLogger(__name__).warning("configuration: %s", warning)
    with session.administration(create=True, make_pepper=True) as administration, configuration.explained():
        administration.read_peppers()
        try:
            serving.run(session.loaded, administration.store, _tell)
        except ListenError as error:
            raise click.ClickException(str(error)) from error


def _tell(address: str) -> None:
    echo(f"The console is at {address} (Ctrl+C stops it).", err=True)


@command.command("add-user")
@configuration.option
@as_option
@click.argument("address", metavar="EMAIL")
@click.option("--password-file", type=click.File("r"), help="Read the password from a file, - for standard input.")
def add_user(config_file: Path, email: str | None, address: str, password_file: Any) -> None:
    """Add an account of the console's own, or give it another password.

    For a first start without a provider. What somebody may do is said by `roles` in the configuration.

    Example: extauthz console add-user ana@acme.com
    """
    from extauthz.admin import accounts
    from extauthz.console import passwords

    session = Session(config_file, email)
    password = _password(password_file)
    with session.administration(create=True, make_pepper=True) as administration:
        is_new = unwrap(accounts.put(administration, session.actor, address, passwords.hashed(password), now()), "EMAIL")
    echo(f"Account {address.lower()} {'is added' if is_new else 'has another password, and its sessions are over'}.")
    roles = session.loaded.settings.roles
    if address.lower() not in (*roles.admins, *roles.super_admins, *roles.viewers):
        echo("It has no role yet: list the address in roles.viewers, roles.admins or roles.super_admins.", err=True)


@command.command("remove-user")
@configuration.option
@as_option
@click.argument("address", metavar="EMAIL")
@yes_option
def remove_user(config_file: Path, email: str | None, address: str, *, yes: bool) -> None:
    """Remove an account, and end its sessions.

    Example: extauthz console remove-user ana@acme.com
    """
    from extauthz.admin import accounts

    session = Session(config_file, email)
    confirm(f"Remove the account of {address}?", yes=yes)
    with session.administration() as administration:
        removed = unwrap(accounts.remove(administration, session.actor, address, now()))
    echo(f"Account {removed} is removed.")


@command.command("list-users")
@configuration.option
@as_option
@json_option
def list_users(config_file: Path, email: str | None, *, as_json: bool) -> None:
    """List the accounts of the console's own.

    Example: extauthz console list-users
    """
    from extauthz.admin import accounts

    session = Session(config_file, email)
    with session.administration() as administration:
        listed = unwrap(accounts.list_accounts(administration, session.actor))
    rows = [{"email": each.email, "created_at": utc(each.created_at), "created_by": each.created_by} for each in listed]
    if as_json:
        write_json(rows)
    elif not rows:
        echo("No account; add one with: extauthz console add-user EMAIL")
    else:
        write_table(_COLUMNS, [(row["email"], row["created_at"], row["created_by"]) for row in rows])


command.add_command(key)


def _password(file: Any) -> str:
    from extauthz.admin import accounts

    text = ask_password("Password") if file is None else file.readline().rstrip("\r\n")
    password = accounts.normalized(text)
    if isinstance(password, Refused):
        raise click.ClickException(password.refusals[0].message)
    return password
