"""The files read once more, or what was read of them, with the settings that are saved in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from extauthz.config import losses
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.monitor import weakened
from extauthz.config.pacing import beside_the_loop
from extauthz.config.saved_settings import Saved
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError


class SettingsSource(Protocol):
    """The settings that are saved in the store, and why a later version is not among them."""

    @property
    def saved(self) -> Saved: ...

    @property
    def problem(self) -> str | None: ...

    async def changed(self, seconds: float) -> None:
        """Wait until one of them may have changed, but no longer than so many seconds."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Settings that could not be laid over what is served, and the files that were missing for them."""

    saved: Saved
    served: Configuration
    missing: frozenset[Path]

    def remains(self, saved: Saved, served: Configuration) -> bool:
        """Tell whether another attempt would end in the same way."""
        return served is self.served and saved == self.saved and not any(path.exists() for path in self.missing)


def reread(served: Configuration, files: Files, *, wanted: Saved, environment: Mapping[str, str]) -> Configuration:
    """Read files in place of those that are served, and their secrets; raises ConfigurationError.

    Settings that are `wanted` and do not fit the files do not keep them from being taken, if those that are served do.
    """
    try:
        return _with_settings(served, files, wanted, environment)
    except ConfigurationError:
        if served.saved is None or served.saved == wanted:
            raise
    return _with_settings(served, files, served.saved, environment)


def _with_settings(served: Configuration, files: Files, saved: Saved, environment: Mapping[str, str]) -> Configuration:
    """Read files with these settings, and their secrets; raises ConfigurationError."""
    configuration = load(served.file, files, end_marker=served.settings.reload.end_marker, saved=saved)
    configuration.read_secrets(environment)
    return configuration


def with_other_settings(served: Configuration, files: Files, saved: Saved, environment: Mapping[str, str]) -> Configuration:
    """Read the files of what is served `again`, with other settings, beside the loop; raises ConfigurationError."""
    with beside_the_loop():
        return _with_settings(served, files, saved, environment)


def served_first(configuration: Configuration, saved: Saved, environment: Mapping[str, str]) -> Configuration:
    """Return what a start serves: the configuration with the settings that are saved, as it is if these do not fit it."""
    if saved is Reason.STORE_UNAVAILABLE:
        return configuration
    try:
        return with_other_settings(configuration, configuration.files.again(), saved, environment)
    except ConfigurationError:
        return configuration


def weaker(before: Configuration, after: Configuration) -> list[str]:
    """Say what may be meant, or may be an accident: routes that are gone, and refusals that are not enforced any more."""
    loss = losses.warning(before.policy, after.policy)
    return [*weakened(before.policy, after.policy), *([loss] if loss else [])]
