"""Changed files are taken as a whole or not at all, and what is served outlasts whatever becomes of them."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from extauthz.config.digests import digest
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.errors import ConfigurationError, StoreError
from extauthz.serve.reload import LOOK, Reloader, ReloadRefused
from tests.support.virtual_time import elapse, in_virtual_time
from tests.support.waiting import until
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


async def test_files_are_watched_for_changes_and_compared_every_five_seconds(
    files: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that watches says so after a quarter of a second without a change, two seconds at most, or five without any."""
    told: dict[str, Any] = {}

    async def awatch(*_: Path, **options: Any) -> AsyncIterator[set[Any]]:
        told.update(options)
        await asyncio.Event().wait()
        yield set()

    monkeypatch.setattr("extauthz.serve.reload.watchfiles.awatch", awatch)
    async with watching(files.reloader):
        await until(lambda: bool(told))
    assert (told["step"], told["debounce"], told["rust_timeout"], told["yield_on_timeout"]) == (250, 2_000, 5_000, True)
    assert told["recursive"] is False
    concerns = {name: told["watch_filter"](None, str(files.folder / name)) for name in ("routes.yaml", "pepper", "..data", "notes")}
    assert concerns == {"routes.yaml": True, "pepper": True, "..data": True, "notes": False}


NEEDS_RESTART = [
    ("server.listen", SETTINGS.replace("9001", "9002")),
    ("server.workers", SETTINGS.replace("ops: null", "ops: null, workers: 2")),
    ("server.drain", SETTINGS.replace("ops: null", "ops: null, drain: 5s")),
    ("server.transport", SETTINGS.replace("ops: null", "ops: null, transport: grpcio")),
    ("server.ops", SETTINGS.replace("ops: null", "ops: 127.0.0.1:9090")),
    ("server.tls", SETTINGS.replace("ops: null", "ops: null, tls: {certificate: a, key: b}")),
    ("grpc", SETTINGS + "grpc: {connections: 7}\n"),
    ("tokens.store", SETTINGS.replace("tokens.db", "other.db")),
]


@pytest.mark.parametrize(("key", "settings"), NEEDS_RESTART, ids=lambda part: part if "\n" not in part else "")
async def test_what_needs_a_restart_is_refused_as_a_whole(files: Watched, key: str, settings: str) -> None:
    reloader = files.reloader
    files.write(extauthz=settings + "realm: other\n")
    await reloader.reload()
    assert f": {key}: was changed, which needs a restart" in str(reloader.problem)
    assert (files.taken, count(reloader, "restart_needed")) == ([], 1)
    files.write(extauthz=SETTINGS)
    await reloader.reload()
    assert (len(files.taken), reloader.problem) == (1, None)


async def test_issued_tokens_can_be_switched_off_and_on_again(files: Watched) -> None:
    reloader = files.reloader
    for settings in (SETTINGS.replace("tokens: {", "tokens: {enabled: false, "), SETTINGS):
        files.write(extauthz=settings)
        await reloader.reload()
        assert reloader.problem is None
    sections = [taken.settings.tokens for taken in files.taken]
    assert [section is not None and section.enabled for section in sections] == [False, True]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_what_cannot_be_taken_is_told_once_and_tried_again(
    files: Watched, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    reloader = files.reloader
    served = reloader.configuration
    files.write(routes=MORE)
    files.error = error
    for _ in range(3):
        await reloader.reload()
    assert str(error) in str(reloader.problem)
    assert caplog.text.count(f"the last good one goes on: {reloader.problem}") == 1
    assert (reloader.configuration, count(reloader, "failed")) == (served, 3)
    files.error = None
    await reloader.reload()
    assert (len(files.taken), reloader.problem) == (1, None)


async def test_what_is_shown_tells_where_and_nothing_else(files: Watched) -> None:
    """What a message says may be the place of a secret, or a secret that was written where a name belongs."""
    reloader = files.reloader
    files.write(extauthz=SETTINGS.replace("file: pepper", "env: HUNTER2_MISPLACED"))
    await reloader.reload()
    assert "HUNTER2_MISPLACED" in str(reloader.problem)
    assert reloader.shown_problem == f"{files.folder}/extauthz.yaml:3: tokens.peppers[0]: the log says why"


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_the_text_of_an_error_is_not_shown(files: Watched, error: Exception) -> None:
    """It may quote the address of the database, an answer of its server, or anything that an exception of ours holds."""
    reloader = files.reloader
    files.error = error
    await reloader.reload()
    assert str(error) in str(reloader.problem)
    assert reloader.shown_problem == "failed: the log says why"


async def test_a_bundle_of_certificates_is_watched(files: Watched) -> None:
    """It says whom the issuer's answers are believed from, and several workers get it from their parent."""
    oauth = "oauth: {provider: okta, issuer: https://acme.okta.com/oauth2/x, client_ids: [x], audience: x, ca_file: ca.pem}\n"
    files.write(extauthz=SETTINGS + oauth)
    (files.folder / "ca.pem").write_text("one")
    reloader = files.reloader
    (files.folder / "ca.pem").write_text("other")
    assert reloader.configuration.files.changed()
    await reloader.reload()
    assert files.taken[0].files.contents[files.folder / "ca.pem"] == b"other"
    (files.folder / "ca.pem").unlink()
    await reloader.reload()
    assert "oauth.ca_file: " in str(reloader.problem)


async def test_a_secret_that_is_missing_is_named(files: Watched) -> None:
    reloader = files.reloader
    (files.folder / "pepper").unlink()
    await reloader.reload()
    assert "extauthz.yaml:3: tokens.peppers[0]:" in str(reloader.problem)
    assert files.taken == []


async def test_the_hash_tells_configurations_apart_and_nothing_of_secrets(files: Watched) -> None:
    reloader = files.reloader
    first = reloader.configuration.files.digest
    files.write(pepper=PEPPER[::-1])
    await reloader.reload()
    assert reloader.configuration.files.digest == first
    files.write(routes=MORE)
    await reloader.reload()
    assert reloader.configuration.files.digest != first
    assert ("extauthz_config_info", (reloader.configuration.files.digest,)) in reloader.samples()


async def test_the_hash_is_made_once(files: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape shows it, and may not take longer with larger files; what is read later still counts."""
    made = []
    monkeypatch.setattr("extauthz.config.files.digest", lambda *parts: made.append(parts) or digest(*parts))
    reloader, other = files.reloader, files.folder / "other"
    other.write_text("a bundle")
    hashes = [reloader.samples().keys() for _ in range(3)]
    assert (len(made), hashes[0]) == (1, hashes[2])
    reloader.configuration.files.read(other)
    assert reloader.samples().keys() != hashes[0]
    hashed = reloader.configuration.files.digest
    reloader.configuration.files.read(files.folder / "extauthz.yaml", secret=True)
    assert reloader.configuration.files.digest != hashed


@pytest.mark.parametrize("ending", ["# end", "# end\n", "# end\r\n", "# end \n\n  \n"])
def test_an_end_is_the_last_line(files: Watched, ending: str) -> None:
    files.write(extauthz=MARKED + ending, routes=ROUTES + ending)
    assert load(files.folder / "extauthz.yaml").settings.reload.end_marker


@pytest.mark.parametrize(
    "ending", ["", "#end\n", "# End\n", "# end of the file\n", "# the end\n", " # end\n", "# end\n#\n", "# end\n# more\n", "# en"]
)
def test_nothing_else_is_an_end(files: Watched, ending: str) -> None:
    """In every file of the configuration, the one that asks for it too; all are told at once."""
    files.write(extauthz=MARKED + ending, routes=ROUTES + ending)
    with pytest.raises(ConfigurationError) as caught:
        load(files.folder / "extauthz.yaml")
    found = [(problem.file, problem.message) for problem in caught.value.problems]
    assert [file for file, _ in found] == [str(files.folder / "extauthz.yaml"), str(files.folder / "routes.yaml")]
    assert all(MISSING in message and "reload.end_marker" in message for _, message in found)


def test_without_the_key_nobody_asks_for_an_end(files: Watched) -> None:
    assert not load(files.folder / "extauthz.yaml").settings.reload.end_marker


async def test_a_half_written_main_file_cannot_take_the_key_back(files: Watched) -> None:
    """What is served asks for the end of the next one as well; a file with an end may leave the key out."""
    files.write(extauthz=SETTINGS + MARKED.partition("\n")[0] + "\n" + END, routes=ROUTES + END)
    reloader = files.reloader
    files.write(extauthz=SETTINGS)
    await reloader.reload()
    assert files.taken == []
    assert MISSING in str(reloader.problem)
    files.write(extauthz=SETTINGS + END)
    await reloader.reload()
    assert [taken.settings.reload.end_marker for taken in files.taken] == [False]
    files.write(routes=MORE)
    await reloader.reload()
    assert len(files.taken) == 2


SEARCH, ADMIN, INTERNAL = "'POST /search'", "'GET /admin/**'", "'* /internal/**'"
LOSSES = {
    "a denial": (ROUTES + '  - {match: "* /internal/**", deny: true}\n', "1 route and 1 denial", ADMIN),
    "all denials": (ROUTES, "2 routes and 2 denials", f"{INTERNAL}, {ADMIN}"),
    "a route": (GUARDED.replace("POST /search", "GET /search"), "1 route", SEARCH),
    "a denial that allows now": (GUARDED.replace('admin/**", deny: true', 'admin/**", scope: SEARCH'), "1 denial", ADMIN),
    "most methods of a denial": (GUARDED.replace("* /internal/**", "GET /internal/**"), "1 route and 1 denial", INTERNAL),
    "all but one host": ("hosts: [a.acme.com]\n" + GUARDED, "3 routes and 2 denials", f"{INTERNAL}, {ADMIN}, {SEARCH}"),
}


@pytest.mark.parametrize("what", LOSSES)
async def test_what_a_reload_takes_away_is_told(files: Watched, caplog: pytest.LogCaptureFixture, what: str) -> None:
    after, lost, named = LOSSES[what]
    files.write(routes=GUARDED)
    reloader = files.reloader
    files.write(routes=after)
    await reloader.reload()
    (told,) = [record for record in caplog.records if "disappeared" in record.message]
    assert told.levelname == "WARNING"
    assert told.message.startswith(f"{lost} disappeared with this reload: {named}")
    reloader.configuration = files.taken[0]
    caplog.clear()
    files.write(routes=after + "# nothing else\n")
    await reloader.reload()
    assert "disappeared" not in caplog.text


@pytest.mark.parametrize(
    "after",
    [
        MORE.removesuffix("\n") + "\n" + GUARDED.removeprefix(ROUTES),
        GUARDED.replace("{match: ", "{name: other, match: ", 1),
        "routes:\n" + "\n".join(reversed(GUARDED.splitlines()[1:])) + "\n",
    ],
    ids=["more", "another name", "another order"],
)
async def test_what_stays_is_no_loss(files: Watched, caplog: pytest.LogCaptureFixture, after: str) -> None:
    files.write(routes=GUARDED)
    reloader = files.reloader
    files.write(routes=after)
    await reloader.reload()
    assert len(files.taken) == 1
    assert "disappeared" not in caplog.text


async def test_a_file_that_was_changed_in_place_is_told_until_it_is_replaced(
    files: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = files.reloader
    assert reloader.replaced_as_a_whole
    files.write(routes=MORE)
    await reloader.reload()
    (told,) = [record for record in caplog.records if "in place" in record.message]
    assert told.levelname == "WARNING"
    assert str(files.folder / "routes.yaml") in told.message
    assert "mv" in told.message
    assert not reloader.replaced_as_a_whole
    caplog.clear()
    new = files.folder / "routes.new"
    new.write_text(ROUTES)
    new.replace(files.folder / "routes.yaml")
    await reloader.reload()
    assert "in place" not in caplog.text
    assert reloader.replaced_as_a_whole
    assert len(files.taken) == 2


async def test_what_was_written_in_place_with_its_end_is_whole_also_when_no_end_is_asked_for_any_more(files: Watched) -> None:
    files.write(extauthz=MARKED + END, routes=ROUTES + END)
    reloader = files.reloader
    for settings, routes, whole in ((MARKED, MORE, True), (SETTINGS, MORE + "# more\n", False), (MARKED, MORE, True)):
        files.write(extauthz=settings + END, routes=routes + END)
        await reloader.reload()
        assert (reloader.problem, reloader.replaced_as_a_whole) == (None, whole)


async def test_secrets_may_be_written_in_place(files: Watched, caplog: pytest.LogCaptureFixture) -> None:
    reloader = files.reloader
    files.write(pepper=PEPPER[::-1])
    await reloader.reload()
    assert len(files.taken) == 1
    assert "in place" not in caplog.text
    assert reloader.replaced_as_a_whole


def run_for_twelve_seconds(reloader: Reloader) -> None:
    async def watched() -> None:
        running = asyncio.create_task(reloader.run())
        await elapse(12)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_virtual_time(watched)


class Broken(Reloader):
    """A reloader that cannot tell which folders to watch."""

    times: ClassVar[list[float]] = []

    def _folders(self) -> dict[Path, int]:
        self.times.append(asyncio.get_running_loop().time())
        raise OSError("no watches are left")


def test_a_watch_that_breaks_is_tried_again_every_five_seconds(files: Watched, caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken(files.reloader.configuration, files.take, environment={}, now=lambda: 1_000.0)
    run_for_twelve_seconds(broken)
    assert broken.times == [0.0, 5.0, 10.0]
    assert [record.getMessage() for record in caplog.records] == ["files not watched"] * 3


def test_folders_that_are_gone_are_looked_for_every_five_seconds(files: Watched) -> None:
    reloader = files.reloader
    aside = files.folder.rename(files.folder.with_name("aside"))

    async def looked() -> float:
        await reloader._watch()
        return round(asyncio.get_running_loop().time(), 6)

    assert in_virtual_time(looked) == LOOK == 5.0
    assert (count(reloader, "failed"), files.taken) == (1, [])
    aside.rename(files.folder)
    files.write(routes=MORE)
    in_virtual_time(reloader._look)
    assert [len(taken.route_places) for taken in files.taken] == [2]


class Nowhere(Reloader):
    """A reloader whose folders are gone for good."""

    looks: ClassVar[list[float]] = []

    def _folders(self) -> dict[Path, int]:
        return {}

    async def _look(self) -> None:
        self.looks.append(round(asyncio.get_running_loop().time(), 6))


def test_without_a_folder_nothing_is_watched(files: Watched) -> None:
    nowhere = Nowhere(files.reloader.configuration, files.take, environment={}, now=lambda: 1_000.0)
    run_for_twelve_seconds(nowhere)
    assert nowhere.looks == [5.0, 10.0]


class Faulty(Reloader):
    """A reloader with a fault of ours in what reads the files."""

    def _load(self, files: Files) -> Configuration:
        super()._load(files)
        raise RuntimeError("a fault of ours")


async def test_files_that_cannot_be_read_for_a_fault_of_ours_are_not_read_again_before_they_change(files: Watched) -> None:
    faulty = Faulty(files.reloader.configuration, files.take, environment={}, now=lambda: 1_000.0)
    for number, routes in enumerate((MORE, ROUTES), 1):
        files.write(routes=routes)
        for _ in range(3):
            await faulty._look()
        assert (count(faulty, "failed"), files.taken) == (number, [])
    assert faulty.problem == "RuntimeError('a fault of ours')"


async def test_reloads_are_counted_and_nothing_is_read_twice(files: Watched) -> None:
    reloader = files.reloader
    before = {f"extauthz_config_reloads_total {result}": 0.0 for result in ("ok", "failed", "restart_needed")}
    times = {"extauthz_config_last_reload_success_timestamp_seconds": 1_000.0, "extauthz_config_stale": 0.0}
    times |= {"extauthz_settings_version": 0.0, "extauthz_settings_turned_back": 0.0}
    info = f"extauthz_config_info {reloader.configuration.files.digest}"
    assert {" ".join([name, *labels]): value for (name, labels), value in reloader.samples().items()} == before | times | {
        info: 1.0
    }
    assert (reloader.problem, reloader.shown_problem) == (None, None)
    await reloader._look()
    assert files.taken == []

    for number, routes in enumerate((MORE, ROUTES), 1):
        files.write(routes=routes)
        for _ in range(3):
            await reloader._look()
        assert (len(files.taken), count(reloader, "ok")) == (number, number)


class CountingLock(asyncio.Lock):
    """A lock that counts who asks for it."""

    requests = 0

    async def acquire(self) -> Literal[True]:
        """Count, then wait as others do."""
        self.requests += 1
        return await super().acquire()


@pytest.mark.parametrize(("change", "times"), [({}, 1), ({"routes": ROUTES}, 2)], ids=["the same change", "another change"])
async def test_a_change_that_a_reload_is_taking_is_not_taken_again(files: Watched, change: dict[str, str], times: int) -> None:
    """SIGHUP and the watcher tell of one change, the watcher while the reload is under way."""
    began, may_end = asyncio.Event(), asyncio.Event()

    async def take(configuration: Configuration) -> None:
        began.set()
        await may_end.wait()
        await files.take(configuration)

    reloader = Reloader(files.reloader.configuration, take, environment={}, now=lambda: 1_000.0)
    lock = reloader._lock = CountingLock()
    files.write(routes=MORE)
    reloading = asyncio.create_task(reloader.reload())
    await began.wait()
    files.write(**change)
    looking = asyncio.create_task(reloader._look())
    await until(lambda: lock.requests == 2)
    may_end.set()
    await asyncio.gather(reloading, looking)
    assert len(files.taken) == times


async def test_policies_are_not_compared_in_the_loop(files: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 10,000 routes that takes tens of milliseconds, in which no check would be answered."""
    threads = []
    for name in ("losses.warning", "weakened"):
        monkeypatch.setattr(f"extauthz.serve.rereading.{name}", lambda *_: threads.append(threading.current_thread()) or [])
    files.write(routes=MORE)
    await files.reloader.reload()
    assert len(files.taken) == 1
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_every_problem_is_kept_on_a_line_of_its_own(files: Watched) -> None:
    reloader = files.reloader
    files.write(routes=MORE.replace("SEARCH", "SAERCH").replace("CHAT", "CAHT"))
    await reloader._look()

    assert [line.partition(": unknown")[0] for line in str(reloader.problem).split("\n")] == [
        f"{files.folder}/routes.yaml:2: routes[0].scope",
        f"{files.folder}/routes.yaml:3: routes[1].scope",
    ]
    shown = ", ".join(f"{files.folder}/routes.yaml:{line}: routes[{line - 2}].scope" for line in (2, 3))
    assert reloader.shown_problem == f"{shown}: the log says why"
    for _ in range(3):
        await reloader._look()
    assert count(reloader, "failed") == 1, "what is wrong is not read again before it changes"


@pytest.mark.parametrize("error", [StoreError("busy"), ReloadRefused("not now")])
async def test_what_cannot_be_taken_is_told_in_its_own_words_and_tried_again(files: Watched, error: Exception) -> None:
    reloader = files.reloader
    files.write(routes=MORE)
    files.error = error
    for number in (1, 2):
        await reloader._look()
        assert (reloader.problem, count(reloader, "failed")) == (str(error), number)
    files.error = None
    await reloader._look()

    assert (reloader.problem, len(files.taken)) == (None, 1)


async def test_what_needs_a_restart_is_not_tried_again(files: Watched) -> None:
    reloader = files.reloader
    files.write(extauthz=SETTINGS.replace("9001", "9002"))
    for _ in range(3):
        await reloader._look()

    assert (count(reloader, "restart_needed"), files.taken) == (1, [])


async def test_a_file_that_was_changed_in_place_is_told_while_others_are_replaced(
    files: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = files.reloader
    files.write(routes=MORE)
    await reloader._look()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{files.folder}/routes.yaml was changed in place, and half of it may have been served: write a new file and move it there "
        "with mv, or write reload: {end_marker: true}"
    ]
    new = files.folder / "new"
    new.write_text(SETTINGS + "realm: other\n")
    new.rename(files.folder / "extauthz.yaml")
    await reloader._look()
    assert (len(files.taken), reloader.replaced_as_a_whole) == (2, False)
    new.write_text(ROUTES)
    new.rename(files.folder / "routes.yaml")
    await reloader._look()
    assert (len(files.taken), reloader.replaced_as_a_whole) == (3, True)


async def test_files_that_were_tried_and_not_taken_are_watched_too(files: Watched, tmp_path: Path) -> None:
    """Also where a link leads: the file that mends it may be any of them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "more.yaml").write_text("routes: [{match: nonsense, scope: SEARCH}]")
    (files.folder / "more.yaml").symlink_to(elsewhere / "more.yaml")
    reloader = files.reloader
    inode = files.folder.stat().st_ino
    assert reloader._folders() == {files.folder: inode}
    files.write(extauthz=SETTINGS.replace("[routes.yaml]", "[routes.yaml, more.yaml]"))
    await reloader._look()

    assert count(reloader, "failed") == 1
    assert {str(files.folder / "more.yaml"), str(elsewhere / "more.yaml")} <= reloader._names()
    assert reloader._folders() == {files.folder: inode, elsewhere: elsewhere.stat().st_ino}
    shutil.rmtree(elsewhere)
    assert reloader._folders() == {files.folder: inode}
