"""Hot reload: files are watched, read and validated as a whole, and taken at once or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path

import watchfiles

from extauthz.config.files import Files
from extauthz.config.loader import Configuration
from extauthz.config.pacing import beside_the_loop
from extauthz.config.restart import needing_restart
from extauthz.config.saved_settings import Saved
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError, Problem, StoreError
from extauthz.serve.certificate_warnings import certificate_warnings
from extauthz.serve.rereading import Misfit, SettingsSource, reread, weaker, with_other_settings
from extauthz.serve.staleness import LatestSettings, Source, Staleness
from extauthz.telemetry.metric_table import Samples

QUIET = 0.25
"""Seconds without a change of any watched file after which a reload begins."""
IMPATIENCE = 2.0
"""Seconds after the first change when it begins although files go on changing: what is half written is refused and read again."""
LOOK = 5.0
"""Seconds between two comparisons of the files with what was read, for file systems that report no changes."""
RETRY = 1.0
"""Seconds between two attempts to take saved settings with which nothing is wrong."""
SWAPPED = "..data"
"""The link that Kubernetes replaces when a ConfigMap or a Secret changes."""

_UNKNOWN = "the OAuth settings in the store are not known: OAuth tokens get 503"

_log = logging.getLogger(__name__)


class ReloadRefused(Exception):
    """The other side cannot take a configuration; the text says why."""


class Outcome(StrEnum):
    """What became of a configuration: it was taken, it was refused for good, or it may be taken by another attempt."""

    TAKEN = "taken"
    REFUSED = "refused"
    FAILED = "failed"


class Reloader:
    """Keeps the configuration that is served, and takes another one when its files change, or the saved settings.

    Saved settings are laid over the files that are served, whatever stands on the disk meanwhile.
    """

    def __init__(
        self,
        configuration: Configuration,
        take: Callable[[Configuration], Awaitable[None]],
        *,
        environment: Mapping[str, str],
        now: Callable[[], float],
    ) -> None:
        """Begin with a configuration that is served; `take` makes another one served, or raises."""
        self.configuration = self._started_with = configuration
        self._staleness, self._latest = Staleness(), LatestSettings(configuration.saved)
        self._wanted: Saved = configuration.saved or Reason.STORE_UNAVAILABLE
        self._misfit: Misfit | None = None
        self._in_place: frozenset[Path] = frozenset()
        self._take = take
        self._environment = environment
        self._now = now
        self._accepted_at = now()
        self._last_files: Files = configuration.files
        self._outcomes: Counter[str] = Counter(ok=0, failed=0, restart_needed=0)
        self._lock = asyncio.Lock()
        self._again = False

    @property
    def problem(self) -> str | None:
        """Why the files, or the saved settings, are not what is served, None while they are."""
        return self._staleness.problem

    @property
    def shown_problem(self) -> str | None:
        """Where that is, without what may be secret."""
        return self._staleness.shown_problem

    @property
    def replaced_as_a_whole(self) -> bool:
        """Return whether no file that is served could have been taken before it was written completely."""
        return not self._in_place

    def samples(self) -> Samples:
        """Return how reloads went."""
        samples: Samples = {("extauthz_config_reloads_total", (result,)): float(count) for result, count in self._outcomes.items()}
        samples["extauthz_config_last_reload_success_timestamp_seconds", ()] = self._accepted_at
        samples["extauthz_config_stale", ()] = float(self.problem is not None)
        samples["extauthz_config_info", (self.configuration.files.digest,)] = 1.0
        samples["extauthz_settings_version", ()] = float(self.configuration.settings_version)
        samples["extauthz_settings_turned_back", ()] = float(self._latest.turned_back)
        return samples

    async def run(self) -> None:
        """Reload whenever a file has changed, until cancelled."""
        while True:
            try:
                await self._watch()
            except Exception:  # noqa: BLE001 - whatever it is, the files are looked at again
                _log.exception("files not watched")
                await asyncio.sleep(LOOK)

    async def follow(self, settings: SettingsSource) -> None:
        """Take what is saved whenever it has changed, until cancelled."""
        while True:
            is_settled = await self.use(settings.saved, settings.problem)
            await settings.changed(LOOK if is_settled else RETRY)

    async def use(self, saved: Saved, problem: str | None = None) -> bool:
        """Serve the files that are served with other saved settings; return whether another attempt would be of no use.

        `problem` is what the store says of a version that may not be used. Whatever is wrong, what is served goes on.
        """
        async with self._lock:
            self._staleness.note(Source.STORE, [problem] if problem else [])
            self._wanted = saved
            if self.configuration.saved == saved:
                self._note_unknown()
                return True
            if self._misfit is not None and self._misfit.remains(saved, self.configuration):
                return True
            return await self._use(saved)

    async def reload(self) -> None:
        """Read the files and take what they say; whatever is wrong, what is served goes on, and the log says why."""
        async with self._lock:
            await self._reload()

    async def _reload(self) -> None:
        files = Files()
        self._again = False
        try:
            configuration, warnings = await asyncio.to_thread(self._read, files)
            if problems := needing_restart(self._started_with, configuration):
                self._refuse(Source.FILES, problems, "restart_needed")
                return
            before = self.configuration
            outcome = await self._attempt(Source.FILES, configuration)
            self._again = outcome is Outcome.FAILED
            if outcome is Outcome.TAKEN:
                self._tell(before, warnings)
        except ConfigurationError as error:
            self._refuse(Source.FILES, error.problems)
        except Exception as error:  # noqa: BLE001 - a problem of ours is no reason to stop serving
            _log.exception("reload failed")
            self._refuse(Source.FILES, [repr(error)])
        finally:
            self._last_files = files

    def _read(self, files: Files) -> tuple[Configuration, list[str]]:
        """Return what the files say, and what there is to be said of how it differs from what is served."""
        with beside_the_loop():
            configuration = self._load(files)
            dates = certificate_warnings(configuration, self._now())
            return configuration, [*weaker(self.configuration, configuration), *(f"configuration: {each}" for each in dates)]

    def _load(self, files: Files) -> Configuration:
        return reread(self.configuration, files, wanted=self._wanted, environment=self._environment)

    async def _use(self, saved: Saved) -> bool:
        before, files = self.configuration, self.configuration.files.again()
        try:
            configuration = await asyncio.to_thread(with_other_settings, before, files, saved, self._environment)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to stop serving
            if not isinstance(error, ConfigurationError):
                _log.exception("reload failed")
            self._misfit = Misfit(saved, before, frozenset(files.missing))
            self._refuse(Source.SETTINGS, error.problems if isinstance(error, ConfigurationError) else [repr(error)])
            return True
        outcome = await self._attempt(Source.SETTINGS, configuration)
        if outcome is Outcome.TAKEN:
            for problem in set(configuration.warnings) - set(before.warnings):
                _log.warning("configuration: %s", problem)
            _log.info("OAuth settings taken", extra={"version": configuration.settings_version})
            if Source.FILES in self._staleness:
                # They may fit the files that could not be taken.
                await self._reload()
            else:
                # There may be a secret among them that was of no use before.
                self._last_files = files
        return outcome is not Outcome.FAILED

    async def _attempt(self, source: Source, configuration: Configuration) -> Outcome:
        """Let a configuration be served."""
        try:
            await self._take(configuration)
        except ConfigurationError as error:
            self._refuse(source, error.problems)
            return Outcome.REFUSED
        except (StoreError, ReloadRefused) as error:
            self._refuse(source, [str(error)])
            return Outcome.FAILED
        except Exception as error:  # noqa: BLE001 - a problem of ours is no reason to stop serving
            _log.exception("reload failed")
            self._refuse(source, [repr(error)])
            return Outcome.FAILED
        self.configuration, self._accepted_at = configuration, self._now()
        self._outcomes["ok"] += 1
        self._latest.serve(configuration.saved)
        self._staleness.note(source, [])
        self._note_unknown()
        return Outcome.TAKEN

    def _note_unknown(self) -> None:
        """Note that what is saved is what is served, or that nobody can tell."""
        if self.configuration.saved == self._wanted or self.configuration.saved is None:
            unknown = [f"{_UNKNOWN} ({self._wanted})"] if isinstance(self.configuration.saved, Reason) else []
            self._staleness.note(Source.SETTINGS, unknown)

    def _tell(self, before: Configuration, warnings: list[str]) -> None:
        """Log what there is to be said of files that were taken in place of others."""
        for warning in warnings:
            _log.warning(warning)
        self._look_for_writing_in_place(before, self.configuration)
        for problem in self.configuration.warnings:
            _log.warning("configuration: %s", problem)
        extra = {"file": str(self.configuration.file), "hash": self.configuration.files.digest}
        _log.info("configuration reloaded", extra=extra)

    def _look_for_writing_in_place(self, earlier: Configuration, configuration: Configuration) -> None:
        """Note and log which files were changed in place, unless their end says that they are whole."""
        if configuration.settings.reload.end_marker:
            self._in_place = frozenset()
            return
        now, before = configuration.files, earlier.files
        same = {path for path in configuration.yaml_files if now.contents.get(path) == before.contents.get(path)}
        changed = {path for path in configuration.yaml_files if now.written_in_place(path, before)}
        for path in sorted(changed):
            _log.warning(
                "%s was changed in place, and half of it may have been served: write a new file and move it there with mv, "
                "or write reload: {end_marker: true}",
                path,
            )
        self._in_place = frozenset((self._in_place & same) | changed)

    def _refuse(self, source: Source, causes: list[Problem] | list[str], result: str = "failed") -> None:
        self._outcomes[result] += 1
        self._staleness.note(source, causes, result)

    async def _watch(self) -> None:
        """Reload at every change, until the files lie in other folders."""
        folders = self._folders()
        if not folders:
            await asyncio.sleep(LOOK)
            await self._look()
            return

        def concerns(_: watchfiles.Change, path: str) -> bool:
            return path in self._names() or path.endswith(f"/{SWAPPED}")

        changes = watchfiles.awatch(
            *folders,
            watch_filter=concerns,
            step=int(QUIET * 1000),
            debounce=int(IMPATIENCE * 1000),
            rust_timeout=int(LOOK * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async with contextlib.aclosing(changes):
            async for _ in changes:
                await self._look()
                if self._folders() != folders:
                    return

    async def _look(self) -> None:
        # A reload under way may be taking what has changed.
        async with self._lock:
            # What could not be taken although nothing is wrong with it is tried again.
            if self._again or await asyncio.to_thread(self._last_files.changed):
                await self._reload()

    def _names(self) -> set[str]:
        paths = self.configuration.files.paths | self._last_files.paths
        return {str(each) for path in paths for each in (os.path.abspath(path), os.path.realpath(path))}

    def _folders(self) -> dict[Path, int]:
        """Return the folders of the files, each with its inode: one that was replaced has to be watched anew."""
        folders: dict[Path, int] = {}
        for folder in {Path(name).parent for name in self._names()}:
            with contextlib.suppress(OSError):
                folders[folder] = folder.stat().st_ino
        return folders
