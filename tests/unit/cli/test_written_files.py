"""`extauthz envoy-config --output`: a file is written whole, or stays as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.command_line import configured, run

OLD = "what was there before\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration, and a file of old."""
    (tmp_path / "envoy.yaml").write_text(OLD)
    (tmp_path / "envoy.yaml").chmod(0o640)
    return configured(tmp_path)


def printed(folder: Path, *flags: str, output: str = "envoy.yaml") -> Result:
    return run(folder, "envoy-config", *flags, "--output", str(folder / output))


def others(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("extauthz.yaml", "routes.yaml", "envoy.yaml"))


@pytest.mark.parametrize("flags", ["", "--format json", "--part filter", "--for istio", "--for istio --format json"])
def test_the_file_holds_what_would_be_printed(folder: Path, flags: str) -> None:
    result = printed(folder, *flags.split())
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    file = folder / "envoy.yaml"
    assert file.read_text() == run(folder, "envoy-config", *flags.split()).stdout
    assert (stat.S_IMODE(file.stat().st_mode), others(folder)) == (0o640, [])


def test_a_new_file_has_the_mode_that_a_shell_would_give_it(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        assert printed(folder, output="new.yaml").exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "new.yaml").stat().st_mode) == 0o640


def test_a_link_stays_a_link(folder: Path) -> None:
    (folder / "link.yaml").symlink_to("envoy.yaml")
    assert printed(folder, output="link.yaml").exit_code == 0
    assert (folder / "link.yaml").is_symlink()
    assert (folder / "envoy.yaml").read_text() != OLD


@pytest.mark.parametrize(
    ("change", "flags", "code"),
    [
        ("version: 7", (), 3),
        ("version: [", (), 3),
        (None, ("--domain", "a b"), 1),
        (None, ("--for", "istio", "--admin", "127.0.0.1:1"), 2),
        (None, ("--upstream", "nowhere"), 2),
    ],
)
def test_an_error_leaves_the_old_file(folder: Path, change: str | None, flags: tuple[str, ...], code: int) -> None:
    if change is not None:
        (folder / "extauthz.yaml").write_text(change)
    result = printed(folder, *flags)
    assert result.exit_code == code, result.output
    assert ((folder / "envoy.yaml").read_text(), others(folder)) == (OLD, [])


@pytest.mark.parametrize("step", ["fsync", "replace", "interrupt"])
def test_a_disk_that_fails_leaves_the_old_file(folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        if step == "interrupt":
            raise KeyboardInterrupt
        raise OSError(28, "No space left on device")

    message = f"Error: {folder / 'envoy.yaml'} cannot be written, and is as it was: No space left on device"
    if step == "replace":
        monkeypatch.setattr(Path, "replace", fails)
    else:
        monkeypatch.setattr("extauthz.cli.written_files.os.fsync", fails)
    result = printed(folder)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "Aborted!" if step == "interrupt" else message)
    assert ((folder / "envoy.yaml").read_text(), others(folder)) == (OLD, [])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/such/folder.yaml", "cannot be written, and is as it was: No such file or directory"),
        ("routes.yaml/x", "cannot be written, and is as it was: Not a directory"),
        ("pipe", "pipe is no file: name one, or leave --output out"),
    ],
)
def test_what_cannot_be_a_file_is_named(folder: Path, output: str, message: str) -> None:
    os.mkfifo(folder / "pipe")
    result = printed(folder, output=output)
    assert (result.exit_code, message in result.stderr) == (1, True), result.output
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
