"""The system tells of changed files as people and machines change them, and they are taken."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from tests.support.waiting import settled, until
from tests.support.watched_files import (
    END,
    FAILURES,
    GUARDED,
    MARKED,
    MISSING,
    MORE,
    PEPPER,
    ROUTES,
    SETTINGS,
    Watched,
    count,
    files,
    watching,
)

__all__ = ["files"]


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system tell of changes; nobody looks for himself."""
    monkeypatch.setattr("extauthz.serve.reload.LOOK", 3600.0)


CHANGES = [
    ("a route", {"routes": MORE}, 2),
    ("a setting", {"extauthz": SETTINGS + "realm: other\n"}, 1),
    ("a secret", {"pepper": PEPPER[::-1]}, 1),
]


@pytest.mark.parametrize(("what", "change", "routes"), CHANGES, ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.usefixtures("only_told")
async def test_a_changed_file_is_taken(files: Watched, what: str, change: dict[str, str], routes: int) -> None:
    reloader = files.reloader
    async with watching(reloader):
        files.write(**change)
        await until(lambda: bool(files.taken))
    assert len(files.taken[0].route_places) == routes
    assert reloader.configuration is files.taken[0]
    assert (count(reloader, "ok"), reloader.problem) == (1, None)


async def test_a_burst_of_changes_is_taken_once(files: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may be silent for longer than the quarter of a second that it takes otherwise.
    monkeypatch.setattr("extauthz.serve.reload.QUIET", 0.8)
    monkeypatch.setattr("extauthz.serve.reload.IMPATIENCE", 20.0)
    reloader = files.reloader
    async with watching(reloader):
        for number in range(20):
            files.write(routes=MORE + f"# {number}\n")
            await asyncio.sleep(0.01)  # why: a burst takes a while, longer than it takes to read a file
        await until(lambda: bool(files.taken))
        files.write(routes=ROUTES)
        await until(lambda: len(files.taken[-1].route_places) == 1)
    assert [len(taken.route_places) for taken in files.taken] == [2, 1]


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "a problem",
        lambda path: path.write_text(MORE.replace("scope: CHAT", "scope: CAHT")),
        "routes.yaml:3: routes[1].scope: unknown scope",
    ),
    ("half written", lambda path: path.write_text(MORE[:-20]), "routes.yaml:"),
    ("empty", lambda path: path.write_text(""), "routes.yaml:1:"),
    ("no text", lambda path: path.write_bytes(b"\x00\xff"), "routes.yaml:1:"),
    ("vanished", lambda path: path.unlink(), "extauthz.yaml:6: routes[0]: no such file"),
    ("a directory in its place", directory, "extauthz.yaml:6: routes[0]:"),
    ("unreadable", link_to_itself, "extauthz.yaml:6: routes[0]:"),
    ("a pipe in its place", pipe, "extauthz.yaml:6: routes[0]:"),
]


@pytest.mark.parametrize(("what", "breaking", "named"), BROKEN, ids=lambda part: part if isinstance(part, str) else "")
async def test_whatever_becomes_of_a_file_what_was_good_goes_on(
    files: Watched, caplog: pytest.LogCaptureFixture, what: str, breaking: Callable[[Path], object], named: str
) -> None:
    reloader = files.reloader
    served, path = reloader.configuration, files.folder / "routes.yaml"
    async with watching(reloader):
        breaking(path)
        await until(lambda: reloader.problem is not None)
        assert named in str(reloader.problem)
        assert named in caplog.text
        assert (reloader.configuration, files.taken, count(reloader, "failed")) == (served, [], 1)
        assert reloader.samples()["extauthz_config_stale", ()] == 1.0

        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_text(MORE)
        await until(lambda: bool(files.taken))
        assert reloader.problem is None
        assert reloader.samples()["extauthz_config_stale", ()] == 0.0


@pytest.mark.parametrize("what", ["directory", "nothing", "itself", "pipe"])
async def test_the_same_of_the_main_file(files: Watched, what: str) -> None:
    reloader, path = files.reloader, files.folder / "extauthz.yaml"
    async with watching(reloader):
        {"directory": directory, "nothing": Path.unlink, "itself": link_to_itself, "pipe": pipe}[what](path)
        await until(lambda: reloader.problem is not None)
        assert "extauthz.yaml:1: cannot be read" in str(reloader.problem)
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_text(SETTINGS + "realm: back\n")
        await until(lambda: bool(files.taken))


@pytest.mark.usefixtures("only_told")
async def test_a_file_that_is_named_later_is_watched_too(files: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[set[Path]] = []
    watch = watchfiles.awatch

    def note(*folders: Path, **options: Any) -> Any:
        watched.append(set(folders))
        return watch(*folders, **options)

    monkeypatch.setattr("extauthz.serve.reload.watchfiles.awatch", note)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "more.yaml").write_text('routes: [{match: "GET /a", public: true}]')
    reloader = files.reloader
    async with watching(reloader):
        files.write(extauthz=SETTINGS.replace("[routes.yaml]", "[routes.yaml, ../elsewhere/more.yaml]"))
        await until(lambda: watched[-1] == {files.folder, other})
        await settled()
        assert len(files.taken) == 1
        (other / "more.yaml").write_text('routes: [{match: "GET /a", public: true}, {match: "GET /b", public: true}]')
        await until(lambda: len(files.taken) == 2)
    assert len(files.taken[-1].route_places) == 3


@pytest.mark.usefixtures("only_told")
async def test_the_swap_of_a_config_map_is_seen(tmp_path: Path) -> None:
    """Kubernetes writes a new folder, and lets one link point to it; the names that are watched do not change at all."""
    mount = tmp_path / "mount"

    def publish(name: str, routes: str) -> None:
        (mount / name).mkdir(parents=True)
        for file, content in {"extauthz.yaml": SETTINGS, "routes.yaml": routes, "pepper": PEPPER}.items():
            (mount / name / file).write_text(content)
        (mount / "..data_tmp").symlink_to(name)
        os.rename(mount / "..data_tmp", mount / "..data")

    publish("..2026_01", ROUTES)
    for file in ("extauthz.yaml", "routes.yaml", "pepper"):
        (mount / file).symlink_to(f"..data/{file}")
    files = Watched(mount)
    reloader = files.reloader
    async with watching(reloader):
        for number, routes in enumerate((MORE, ROUTES, MORE), start=1):
            publish(f"..2026_1{number}", routes)
            await until(lambda expected=number: len(files.taken) == expected)  # type: ignore[misc]
            shutil.rmtree(mount / ("..2026_01" if number == 1 else f"..2026_1{number - 1}"))
    assert [len(one.route_places) for one in files.taken] == [2, 1, 2]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_what_could_not_be_taken_is_tried_again_without_another_change(
    files: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Else a database that was away for a second would leave the old rules in place until somebody touches a file."""
    monkeypatch.setattr("extauthz.serve.reload.LOOK", 0.2)
    reloader = files.reloader
    files.error = error
    async with watching(reloader):
        files.write(routes=MORE)
        await until(lambda: count(reloader, "failed") >= 2)
        files.error = None
        await until(lambda: len(files.taken) == 1)
    assert reloader.problem is None


async def test_a_file_that_is_written_slowly_counts_when_its_end_is_there(
    files: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first half is valid YAML, and lacks the denials."""
    monkeypatch.setattr("extauthz.serve.reload.LOOK", 0.05)
    files.write(extauthz=MARKED + END, routes=GUARDED + END)
    reloader = files.reloader
    async with watching(reloader):
        with (files.folder / "routes.yaml").open("w") as opened:
            opened.write(MORE)
            opened.flush()
            await until(lambda: MISSING in caplog.text)
            assert files.taken == []
            assert reloader.problem is not None
            assert f"{files.folder / 'routes.yaml'}:3: {MISSING}" in reloader.problem
            opened.write(GUARDED.removeprefix(ROUTES) + END)
        await until(lambda: bool(files.taken))
    assert [sorted(taken.route_places) for taken in files.taken] == [
        ["* /internal/**", "GET /admin/**", "POST /chat", "POST /search"],
    ]
    assert "in place" not in caplog.text, "it does no harm"
