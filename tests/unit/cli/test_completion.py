"""What shells are told that a word can become: by the variables that their scripts set."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner

from extauthz.cli import COMMANDS, COMPLETING, completion_values, main
from extauthz.cli.completion import Bash
from extauthz.core.model import Reason
from tests.support.command_line import folder, run

__all__ = ["folder"]


def completed(line: str, shell: str = "bash", **environment: str) -> list[str]:
    """Return what the last word of a line can become, as the script of the shell would be told."""
    words = shlex.split(line)
    last = "" if line.endswith(" ") else words[-1]
    number = len(words) if not last else len(words) - 1
    variables = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(number)},
        "zsh": {"COMP_WORDS": line, "COMP_CWORD": str(number)},
        "fish": {"COMP_WORDS": line, "COMP_CWORD": last},
    }[shell]
    result = CliRunner().invoke(
        main, [], prog_name="extauthz", env={**variables, "_EXTAUTHZ_COMPLETE": f"{shell}_complete", **environment}
    )
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.rstrip("\n").split("\n")
    return [line for line in (lines[1::3] if shell == "zsh" else [text.split("\t")[0].partition(",")[2] for text in lines]) if line]


SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_calls_the_program(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_EXTAUTHZ_COMPLETE={shell}_complete" in result.stdout
    assert "_extauthz_completion" in result.stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("extauthz ", set(COMMANDS)),
        ("extauthz tok", {"token"}),
        ("extauthz token re", {"revoke"}),
        ("extauthz console key ", {"create", "list", "revoke"}),
        ("extauthz completion ", set(SHELLS)),
        ("extauthz token create --perm", {"--permission"}),
        ("extauthz token create --permission U", {"user"}),
        ("extauthz worke", set()),
        ("extauthz monitor-repor", set()),
    ],
)
def test_commands_that_nobody_imported_yet_are_completed(shell: str, line: str, words: set[str]) -> None:
    assert set(completed(line, shell)) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_left_to_the_shell(shell: str) -> None:
    result = CliRunner().invoke(
        main,
        [],
        prog_name="extauthz",
        env={
            "COMP_WORDS": "extauthz config check --config ex",
            "COMP_CWORD": "ex" if shell == "fish" else "4",
            "_EXTAUTHZ_COMPLETE": f"{shell}_complete",
        },
    )
    assert result.stdout.replace("\n", ",").split(",")[:2] == ["file", "ex"]


@pytest.mark.parametrize(
    ("begun", "scopes"), [("", ["SEARCH", "CHAT", "DOCPERMISSIONS"]), ("SE", ["SEARCH"]), ("ch", ["CHAT"]), ("X", [])]
)
@pytest.mark.parametrize("place", ["flag", "variable"])
def test_scopes_are_those_of_the_configuration(folder: Path, begun: str, scopes: list[str], place: str) -> None:
    file = shlex.quote(str(folder / "extauthz.yaml"))
    flag, environment = (f"--config {file} ", {}) if place == "flag" else ("", {"EXTAUTHZ_CONFIG": str(folder / "extauthz.yaml")})
    assert completed(f"extauthz token create {flag}--scope {begun}", **environment) == scopes


@pytest.mark.parametrize(
    "text",
    [None, "", "[", "scopes: SEARCH", "scopes: {a: 1}", "scopes: [[a], 1, null]", "\0", f"# {'x' * completion_values.MAX_BYTES}"],
)
def test_a_configuration_that_cannot_be_read_completes_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "extauthz.yaml").write_text(text)
    assert completed(f"extauthz token list --config {tmp_path}/extauthz.yaml --scope ") == []


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "extauthz.yaml")
    assert completed(f"extauthz token list --config {tmp_path}/extauthz.yaml --scope ") == []


def test_no_secret_and_no_store_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(folder, "store", "migrate").exit_code == 0
    (folder / "data" / "pepper").write_text("f" * 64)
    opened: list[str] = []
    real = os.open

    def noted(path: str | Path, *arguments: int, **options: int) -> int:
        opened.append(str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", noted)
    assert completed(f"extauthz token list --config {folder}/extauthz.yaml --scope SE") == ["SEARCH"]
    assert [Path(path).name for path in opened if path.startswith(str(folder))] == ["extauthz.yaml"]


def test_a_route_with_spaces_stays_one_word_in_bash(folder: Path) -> None:
    item = CompletionItem("POST /search")
    assert Bash(main, {}, "extauthz", COMPLETING).format_completion(item) == "plain,'POST /search'"
    context = click.Context(main)
    context.params["config_file"] = folder / "extauthz.yaml"
    assert completion_values.routes(context, main.params[0], "PO") == ["POST /search"]
    (folder / "routes.yaml").write_text('routes: [{match: "GET /a", name: a}, {match: [1]}, 5, {}, {name: ""}]')
    assert completion_values.routes(context, main.params[0], "") == ["a"]


def test_reasons_are_those_of_the_code() -> None:
    found = completion_values.reasons(click.Context(main), main.params[0], "token_")
    assert found == [reason.value for reason in Reason if reason.value.startswith("token_")]
    assert found
