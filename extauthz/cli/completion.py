"""`extauthz completion`: the script by which a shell completes the words of a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete, add_completion_class

from extauthz.cli import COMPLETING
from extauthz.cli.terminal import write


class Bash(BashComplete):
    """Completion of click, with quotes around what bash would read as several words."""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return one line for the script."""
        value = shlex.quote(item.value) if item.type == "plain" and item.value else item.value
        return f"{item.type},{value}"


SHELLS: Mapping[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": FishComplete}


def prepare() -> None:
    """Let click know our own completion for bash, before it answers a script."""
    add_completion_class(Bash)


@click.command("completion", no_args_is_help=True)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def command(context: click.Context, /, shell: str) -> None:
    """Print the script with which a shell completes commands, flags, files, scopes, reasons and routes.

    Scopes and routes are those of the configuration that --config or EXTAUTHZ_CONFIG names.
    No secret and no store is read for that.

    \b
    bash, version 4.4 or newer, in ~/.bashrc:
      eval "$(extauthz completion bash)"
    or, for everybody, with the package bash-completion:
      extauthz completion bash > /etc/bash_completion.d/extauthz
    zsh, in ~/.zshrc behind compinit:
      eval "$(extauthz completion zsh)"
    or in a folder of $fpath:
      extauthz completion zsh > ~/.zfunc/_extauthz
    fish:
      extauthz completion fish > ~/.config/fish/completions/extauthz.fish

    \b
    Example: extauthz completion bash
    """
    nothing: dict[str, Any] = {}
    script = SHELLS[shell](context.find_root().command, nothing, "extauthz", COMPLETING)
    write(ShellComplete.source(script))
