"""Logs of decisions, line by line, from several files or standard input, compressed or not."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

import click

from extauthz.cli.rendering import progress
from extauthz.tools.log_lines import MAX_LINE

STEP = 1 << 20
"""Bytes between two steps of the progress bar."""

_GZIP = b"\x1f\x8b"

log_argument: Callable[[Any], Any] = click.argument(
    "logs",
    metavar="LOG...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)


def read_logs(logs: tuple[Path, ...], take: Callable[[bytes], None]) -> None:
    """Give every line of every log to `take`, and show how far that is; raises ClickException for a log that cannot be read.

    A log is compressed by gzip if it begins like that, whatever its name.
    """
    total = sum(log.stat().st_size for log in logs if str(log) != "-")
    with progress("reading", total) as bar:
        for log in logs:
            try:
                with ExitStack() as stack:
                    file: IO[bytes] = sys.stdin.buffer if str(log) == "-" else stack.enter_context(log.open("rb"))
                    for line in lines(file, partial(bar.advance, bar.task_ids[0])):
                        take(line)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise click.ClickException(f"{log} is damaged: it begins as gzip and does not go on like that") from error
            except OSError as error:
                raise click.ClickException(f"{log} cannot be read: {error.strerror}") from error


def lines(file: IO[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield lines that are not blank; one that is too long comes as its beginning, which is no JSON.

    Advances by what was read of the file. Raises EOFError, zlib.error or gzip.BadGzipFile for gzip that is damaged.
    """
    counted = _Counted(file)
    reader = io.BufferedReader(counted, STEP)
    stream: IO[bytes] = reader
    if reader.peek(len(_GZIP)).startswith(_GZIP):
        stream = io.BufferedReader(gzip.GzipFile(fileobj=reader), STEP)
    passed = 0
    while line := stream.readline(MAX_LINE):
        part = line
        while not part.endswith(b"\n") and (part := stream.readline(MAX_LINE)):
            pass
        if counted.size - passed >= STEP:
            advance(counted.size - passed)
            passed = counted.size
        if line.strip():
            yield line
    advance(counted.size - passed)


class _Counted(io.RawIOBase):
    """A file, and how many bytes were read of it; it is not closed with this."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin where the file is."""
        self._file = file
        self.size = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, up to the size of the buffer."""
        read: Callable[[int], bytes] = getattr(self._file, "read1", self._file.read)
        data = read(len(buffer))
        buffer[: len(data)] = data
        self.size += len(data)
        return len(data)
