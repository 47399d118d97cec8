"""The one way to standard output and standard error: no control character of anybody's, no text that the encoding lacks."""

from __future__ import annotations

import codecs
import errno
import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

import click

_MARKS = str.maketrans({"…": "...", "→": "->", "─": "-", "–": "-", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'"})
_HANDLER = "extauthz"


class Unwritable(Exception):
    """Standard output takes nothing any more."""

    def __init__(self, error: OSError) -> None:
        """Keep the cause; a reader who left is no cause to complain of."""
        super().__init__(error.strerror or str(error))
        self.is_closed_pipe = error.errno == errno.EPIPE


@dataclass(frozen=True, slots=True)
class Styled:
    """A text in colour or bold, where a terminal shows that."""

    text: str
    fg: str | None = None
    bold: bool | None = None


def printable(text: str, *, lines: bool = True) -> str:
    r"""Write everything that is not for reading as `\uNNNN`, as JSON does: what a terminal obeys, and what turns text around.

    With `lines` an end of line stays one.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or (lines and letter == "\n") else _escaped(letter) for letter in text)


def echo(*parts: str | Styled, err: bool = False, nl: bool = True) -> None:
    """Print parts as one line or more; raises Unwritable for standard output, and is silent if standard error takes nothing."""
    text = "".join(
        click.style(printable(part.text), fg=part.fg, bold=part.bold) if isinstance(part, Styled) else printable(part)
        for part in parts
    )
    write(text + ("\n" if nl else ""), err=err)


def write(text: str, *, err: bool = False) -> None:
    """Write a text that holds nothing but what we made of it."""
    try:
        click.echo(text, file=_stream(err=err), nl=False)
    except OSError as error:
        if not err:
            raise Unwritable(error) from error


def fitting(text: str, *, err: bool = False) -> str:
    """Return a text as the stream can show it, for libraries that print by themselves."""
    with suppress(OSError):
        encoding = getattr(_stream(err=err), "encoding", None) or "ascii"
        return printable(text).encode(encoding, _HANDLER).decode(encoding)
    return printable(text)


def can_show(letter: str) -> bool:
    """Tell whether standard output has this letter."""
    return fitting(letter) == letter


def prepare() -> None:
    """Let both streams take every text, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def finish() -> None:
    """Write what is still to be written; raises Unwritable."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise Unwritable(error) from error


def show(error: click.ClickException) -> None:
    """Print the message of a refusal, as click would."""
    message = io.StringIO()
    error.show(file=message)
    echo(message.getvalue(), err=True, nl=False)


def give_up(error: Unwritable) -> NoReturn:
    """End with 1, and say why unless whoever read went away."""
    _turn_off_output()
    if not error.is_closed_pipe:
        echo(f"Error: standard output cannot be written: {error}", err=True)
    sys.exit(1)


@contextmanager
def showing_secrets(*revoke: str) -> Iterator[list[str]]:
    """Yield a list for the ids of tokens once they are stored: if anything fails before their secrets are out, it is printed.

    `revoke` are the words of the command that ends what was made, those for tokens if there are none.
    """
    stored: list[str] = []
    try:
        yield stored
        finish()
    except BaseException as error:
        if not stored:
            raise
        _turn_off_output()
        cause = error.format_message() if isinstance(error, click.ClickException) else str(error) or type(error).__name__
        words = [*revoke, *stored] if revoke else ["token", "revoke", *stored, "--why", "its secret was not shown"]
        command = shlex.join(["extauthz", *words, "--yes", *_flags()])
        kind = "key" if revoke else "token"
        what = f"The {kind} was" if len(stored) == 1 else f"The {kind}s were"
        echo(f"Error: not all could be shown: {cause}\n{what} made all the same. Revoke what is lost:\n  {command}", err=True)
        sys.exit(1)


def _flags() -> Iterator[str]:
    context = click.get_current_context(silent=True)
    parameters: dict[str, Any] = context.params if context is not None else {}
    for name, flag in (("config_file", "--config"), ("email", "--as")):
        if parameters.get(name) is not None:
            yield from (flag, str(parameters[name]))


def _stream(*, err: bool) -> TextIO:
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return stream


def _turn_off_output() -> None:
    """Let what is left in the buffer of standard output go nowhere: at its exit Python would fail with it once more."""
    with suppress(OSError, AttributeError, ValueError):
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place] << 8 | units[place + 1]:04x}" for place in range(0, len(units), 2))


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    rest = error.object[error.start : error.end]
    return "".join(plain if (plain := letter.translate(_MARKS)).isascii() else _escaped(letter) for letter in rest), error.end


codecs.register_error(_HANDLER, _replaced)
