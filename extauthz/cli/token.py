"""`extauthz token …`: whoever can open the store and the pepper is a super admin, unless --as says otherwise."""

from __future__ import annotations

import click

from extauthz.cli import token_create, token_end, token_leaks, token_list, token_move, token_rotate


@click.group("token")
def command() -> None:
    """Issued tokens: create, list, show, rotate, revoke, verify, export, import.

    Example: extauthz token list --expiring 30d
    """


for _subcommand in (
    token_create.create,
    token_list.list_tokens,
    token_list.show,
    token_rotate.rotate,
    token_end.revoke,
    token_end.leaked,
    token_leaks.verify,
    token_move.export,
    token_move.import_tokens,
):
    command.add_command(_subcommand)
