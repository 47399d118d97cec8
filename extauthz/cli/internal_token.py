"""`extauthz internal-token …`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.terminal import echo
from extauthz.process import private_files
from extauthz.responses.algorithms import ALGORITHMS


@click.group("internal-token")
def command() -> None:
    """Keys of the tokens that tell upstreams who is calling.

    Example: extauthz internal-token jwks
    """


@command.command("new-key")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to write it; must not exist.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default=ALGORITHMS[0], show_default=True, help="What it signs with.")
def make(file: Path, *, algorithm: str) -> None:
    """Write a new private key that only this user may read.

    Example: extauthz internal-token new-key --file data/internal-k1.pem
    """
    from extauthz.responses.internal_tokens import new_key

    try:
        descriptor = private_files.create(file)
    except FileExistsError:
        raise click.ClickException(f"{file} exists, and a key is never overwritten: name another file") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from error
    try:
        with open(descriptor, "wb") as writing:
            writing.write(new_key(algorithm))
            writing.flush()
            os.fsync(writing.fileno())
    except OSError as error:
        file.unlink(missing_ok=True)
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from error
    echo(f"Wrote {file}: list it in internal_token.keys of every sidecar, behind the key that signs now.")


@command.command("jwks")
@configuration.option
def jwks(config_file: Path) -> None:
    """Print the public keys, as the listener publishes them.

    Example: extauthz internal-token jwks --config config/extauthz.yaml
    """
    from extauthz.runtime.codec import build_internal_tokens

    with configuration.explained():
        loaded = configuration.read(config_file)
        tokens = build_internal_tokens(loaded, loaded.internal_token_keys(os.environ))
    if tokens is None:
        raise click.ClickException(f"{config_file} makes no internal tokens: write the section internal_token, with enabled: true")
    echo(tokens.key_set.decode())
