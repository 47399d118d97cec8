"""`extauthz record`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from extauthz.cli.completion_values import reasons as complete_reasons
from extauthz.cli.completion_values import routes as complete_routes
from extauthz.cli.ops_flags import listener, ops_options
from extauthz.cli.output import json_option, write_json
from extauthz.cli.terminal import echo
from extauthz.config.units import duration
from extauthz.config.wording import counted
from extauthz.errors import LiveError
from extauthz.process import private_files

if TYPE_CHECKING:
    from extauthz.tools.live import LiveSidecar, OpsListener

PAUSE = 0.5
"""Seconds between two questions: a recording that nobody asks for ends after ten."""
MAX_SECONDS, MAX_NUMBER = 3_600, 10_000


class Seconds(click.ParamType[int]):
    """A duration like 60s."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        try:
            seconds = duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 1 <= seconds <= MAX_SECONDS:
            self.fail(f"{value!r}: write a time from 1s to 1h", param, ctx)
        return int(seconds)


@click.command("record")
@ops_options
@click.option("--for", "seconds", type=Seconds(), default="60s", show_default=True, help="For so long, 1h at most.")
@click.option("--number", type=click.IntRange(1, MAX_NUMBER), default=100, show_default=True, help="So many requests.")
@click.option("--reason", shell_complete=complete_reasons, help="Only with this reason, like scope_missing.")
@click.option("--route", shell_complete=complete_routes, help="Only of this route, by its name.")
@click.option("--user", help="Only for this effective user.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The file that is made, with mode 0600.")
@json_option
def command(
    config_file: Path,
    *,
    ops: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    seconds: int,
    number: int,
    output: Path,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Record requests of a running sidecar, without their tokens.

    Each line of the file is a request for test, explain and replay. In place of a token it says what verifying it came to. It has
    the e-mail addresses, hosts and origins that the decision depends on, and no other value of a header. Of a path it has what
    routes name, words and numbers, and removed in place of the rest. The sidecar has to allow it (server.recording), and one
    recording at a time goes on. Ctrl-C ends it, and keeps what was recorded. Exit codes: 0 done, 1 no sidecar answers, it refuses,
    or nothing was recorded; 2 wrong flags, 3 problems in the configuration.

    \b
    Example: extauthz record --output requests.jsonl --for 60s --number 100
             extauthz record --output refused.jsonl --reason scope_missing --ops 127.0.0.1:9090
    """
    import asyncio

    place = listener(config_file, ops, ca, cert, key)
    query = {name: value for name, value in filters.items() if value is not None}
    query |= {"seconds": str(seconds), "number": str(number)}
    written = RecordingProgress()
    try:
        descriptor = private_files.create(output)
    except OSError as error:
        hint = "name another one" if isinstance(error, FileExistsError) else "name a place that can be written"
        raise click.ClickException(f"{output}: {error.strerror or error}: {hint}") from error
    with open(descriptor, "w", encoding="ascii") as stream:
        try:
            asyncio.run(_record(place, query, stream, written))
        except LiveError as error:
            if not written.requests:
                output.unlink(missing_ok=True)
                raise click.ClickException(str(error)) from error
            echo(f"{error}: the recording ends here.", err=True)
        except KeyboardInterrupt:
            pass
        except OSError as error:
            raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error
    if written.silent:
        echo(f"Without the requests of {', '.join(sorted(written.silent))}: no answer in time.", err=True)
    if written.left_out:
        echo(f"{counted(written.left_out, 'request')} left out: they cannot be told without a secret.", err=True)
    if not written.requests:
        output.unlink(missing_ok=True)
        raise click.ClickException("nothing was recorded: no request came that is wanted")
    if as_json:
        write_json({"file": os.fspath(output), "requests": written.requests, "left_out": written.left_out})
    else:
        echo(f"{counted(written.requests, 'request')} recorded in {output}.")


@dataclass(slots=True)
class RecordingProgress:
    """What came of a recording so far."""

    requests: int = 0
    left_out: int = 0
    silent: frozenset[str] = frozenset()


async def _record(place: OpsListener, query: dict[str, str], stream: IO[str], written: RecordingProgress) -> None:
    from extauthz.tools.live import asking

    async with asking(place) as sidecar:
        recording = await sidecar.start_recording(query)
        is_over = False
        try:
            while not is_over:
                is_over = await _take(sidecar, recording, stream, written)
        finally:
            if not is_over:
                await _end(sidecar, recording)


async def _take(sidecar: LiveSidecar, recording: str, stream: IO[str], written: RecordingProgress) -> bool:
    """Write what was recorded since the last time; return whether no more comes."""
    import asyncio

    found = await sidecar.next_recorded(recording)
    for request in found.requests:
        stream.write(json.dumps(request) + "\n")
    stream.flush()
    written.requests += len(found.requests)
    written.left_out += found.left_out
    written.silent |= frozenset(found.silent)
    if not found.is_over and not found.requests:
        await asyncio.sleep(PAUSE)
    return found.is_over


async def _end(sidecar: LiveSidecar, recording: str) -> None:

    try:
        await sidecar.end_recording(recording)
    except LiveError:
        # It ends by itself when nobody asks for it.
        return
