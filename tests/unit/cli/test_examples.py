"""The examples of `--help`: every command and every group of them has one, each line of which is a call that click takes."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from extauthz.cli import main

_SHELL = {"|", "<", ">", ">>", "&&", "2>"}


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *path, name)


ALL = dict(commands(main))


def examples(command: click.Command) -> list[list[str]]:
    """Return the words of each line of the example, without the program, and as far as the line is ours and not the shell's."""
    _, _, text = inspect.cleandoc(command.help or "").partition("Example: ")
    found = []
    for line in text.split("\n\n")[0].splitlines():
        words = shlex.split(line, comments=True)
        # Another program may be before it, whose output it reads.
        start = words.index("extauthz") if "extauthz" in words else 0
        assert words[start] == "extauthz", f"each line of an example is a call: {line}"
        assert words[:start][-1:] in ([], ["|"]), line  # why: with nothing before it, or behind a pipe
        end = next((place for place, word in enumerate(words) if word in _SHELL and place > start), len(words))
        found.append(words[start + 1 : end])
    return found


def resolved(words: list[str]) -> tuple[tuple[str, ...], click.Command, list[str]]:
    """Return the words of the command that a call names, the command, and its arguments."""
    path: tuple[str, ...] = ()
    while words and (*path, words[0]) in ALL:
        path, words = (*path, words[0]), words[1:]
    command = ALL[path]
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command.resolve_command(click.Context(command), words)
    return path, command, words


def parsed(words: list[str]) -> None:
    """Let click read a call as it would to run it; raises click.ClickException for one that it refuses."""
    path, command, arguments = resolved(words)
    for word in arguments:
        # Files that an example reads have to be there.
        file = Path(word.partition("=")[2] or word)
        if re.fullmatch(r"[\w./-]+\.\w+", str(file)):
            assert not file.is_absolute(), f"{file} is nobody's file"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    # A command keeps the help flag of its first context, so this one has what the program gives to all.
    parent = click.Context(main, info_name="extauthz", **main.context_settings)
    context = command.make_context(" ".join(path), arguments, parent=parent)
    with context:
        assert context.command is command, "leaving the context closes the files that it opened"


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_every_group_has_an_example_that_click_takes(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = examples(ALL[path])
    assert calls, "write Example: extauthz … into its docstring"
    for words in calls:
        assert tuple(words[: len(path)]) == path
        parsed(words)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("token list --nonsense", "No such option"),
        ("token list --permission ROOT", "is not one of"),
        ("report missing", "does not exist"),
        ("token create --scope", "requires an argument"),
        ("token show", "Missing argument"),
        ("config show more", "unexpected extra argument (more)"),
        ("config nonsense", "No such command"),
    ],
)
def test_a_wrong_example_is_noticed(line: str, complaint: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        parsed(line.split())
    assert complaint in refused.value.format_message()
