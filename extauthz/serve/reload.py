"""Hot reload: files are watched, read and validated as a whole, and taken at once or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import watchfiles

from extauthz.config import losses
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.monitor import weakened
from extauthz.config.pacing import beside_the_loop
from extauthz.config.restart import needing_restart
from extauthz.errors import ConfigurationError, Problem, StoreError
from extauthz.telemetry.metric_table import Samples

QUIET = 0.25
"""Seconds without a change of any watched file after which a reload begins."""
IMPATIENCE = 2.0
"""Seconds after the first change when it begins although files go on changing: what is half written is refused and read again."""
LOOK = 5.0
"""Seconds between two comparisons of the files with what was read, for file systems that report no changes."""
SWAPPED = "..data"
"""The link that Kubernetes replaces when a ConfigMap or a Secret changes."""

_log = logging.getLogger(__name__)


class ReloadRefused(Exception):
    """The other side cannot take a configuration; the text says why."""


class Reloader:
    """Keeps the configuration that is served, and takes another one when its files change.

    `problem` is why the files are not what is served, None while they are; `shown_problem` says only where.
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
        self.problem: str | None = None
        self.shown_problem: str | None = None
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
    def replaced_as_a_whole(self) -> bool:
        """Return whether no file that is served could have been taken before it was written completely."""
        return not self._in_place

    def samples(self) -> Samples:
        """Return how reloads went."""
        samples: Samples = {("extauthz_config_reloads_total", (result,)): float(count) for result, count in self._outcomes.items()}
        samples["extauthz_config_last_reload_success_timestamp_seconds", ()] = self._accepted_at
        samples["extauthz_config_stale", ()] = float(self.problem is not None)
        samples["extauthz_config_info", (self.configuration.files.digest,)] = 1.0
        return samples

    async def run(self) -> None:
        """Reload whenever a file has changed, until cancelled."""
        while True:
            try:
                await self._watch()
            except Exception:  # noqa: BLE001 - whatever it is, the files are looked at again
                _log.exception("files not watched")
                await asyncio.sleep(LOOK)

    async def reload(self) -> None:
        """Read the files and take what they say; whatever is wrong, what is served goes on, and the log says why."""
        async with self._lock:
            await self._reload()

    async def _reload(self) -> None:
        files = Files()
        self._again = False
        try:
            configuration, warnings = await asyncio.to_thread(self._read, files)
            problems = needing_restart(self._started_with, configuration)
            self._again = not problems
            if problems:
                self._refuse("restart_needed", problems)
                return
            await self._take(configuration)
        except ConfigurationError as error:
            self._again = False
            self._refuse("failed", error.problems)
        except (StoreError, ReloadRefused) as error:
            self._refuse("failed", [str(error)])
        except Exception as error:  # noqa: BLE001 - a problem of ours is no reason to stop serving
            _log.exception("reload failed")
            self._refuse("failed", [repr(error)])
        else:
            self._accept(configuration, warnings)
        finally:
            self._last_files = files

    def _read(self, files: Files) -> tuple[Configuration, list[str]]:
        """Return what the files say, and what there is to be said of how it differs from what is served."""
        with beside_the_loop():
            configuration = self._load(files)
            before, after = self.configuration.policy, configuration.policy
            loss = losses.warning(before, after)
            return configuration, [*weakened(before, after), *([loss] if loss else [])]

    def _load(self, files: Files) -> Configuration:
        configuration = load(self.configuration.file, files, end_marker=self.configuration.settings.reload.end_marker)
        configuration.read_secrets(self._environment)
        return configuration

    def _accept(self, configuration: Configuration, warnings: list[str]) -> None:
        for warning in warnings:
            _log.warning(warning)
        self._look_for_writing_in_place(configuration)
        self.configuration, self._accepted_at = configuration, self._now()
        self.problem, self.shown_problem, self._again = None, None, False
        self._outcomes["ok"] += 1
        for problem in configuration.warnings:
            _log.warning("configuration: %s", problem)
        _log.info("configuration reloaded", extra={"file": str(configuration.file), "hash": configuration.files.digest})

    def _look_for_writing_in_place(self, configuration: Configuration) -> None:
        """Note and log which files were changed in place, unless their end says that they are whole."""
        if configuration.settings.reload.end_marker:
            self._in_place = frozenset()
            return
        now, before = configuration.files, self.configuration.files
        same = {path for path in configuration.yaml_files if now.contents.get(path) == before.contents.get(path)}
        changed = {path for path in configuration.yaml_files if now.written_in_place(path, before)}
        for path in sorted(changed):
            _log.warning(
                "%s was changed in place, and half of it may have been served: write a new file and move it there with mv, "
                "or write reload: {end_marker: true}",
                path,
            )
        self._in_place = frozenset((self._in_place & same) | changed)

    def _refuse(self, result: str, causes: list[Problem] | list[str]) -> None:
        problem = "\n".join(map(str, causes))
        self._outcomes[result] += 1
        if problem != self.problem:
            for cause in causes:
                _log.error("configuration not reloaded, the last good one goes on: %s", cause)
        self.problem = problem
        # A message may name the place of a secret, or quote what should have been none.
        places = (f"{cause.file}:{cause.line}: {cause.path}" if isinstance(cause, Problem) else result for cause in causes)
        self.shown_problem = f"{', '.join(dict.fromkeys(places))}: the log says why"

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
