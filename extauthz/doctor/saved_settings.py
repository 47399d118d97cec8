"""The OAuth settings in the store: that they can be read, are what was written, and fit the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from extauthz.adapters.store.settings_rows import keys_of, refusal
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.config.loader import Configuration, load
from extauthz.config.saved_settings import SavedSettings
from extauthz.doctor.findings import Finding, ok, problem
from extauthz.errors import ConfigurationError, StoreError

NAME = "oauth.settings"


def look(configuration: Configuration, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the version that sidecars serve."""
    try:
        saved = _read(configuration, environment)
        oauth = _applied(configuration, saved).settings.oauth
    except StoreError as error:
        yield problem(NAME, str(error), "until then OAuth tokens get 503, or what was served before goes on")
    except ConfigurationError as error:
        advice = "mend the file, or save settings that fit it; until then OAuth tokens get 503, or what was served before goes on"
        yield problem(NAME, "; ".join(map(str, error.problems)), advice)
    else:
        state = "on" if oauth is not None and oauth.enabled else "off"
        what = saved.place if saved.version else "nothing was saved yet"
        yield ok(NAME, f"{what}: OAuth tokens are {state}")


def applied(configuration: Configuration, environment: Mapping[str, str]) -> Configuration:
    """Return a configuration with the settings that are saved, as it is without any that could be used."""
    if configuration.settings_place is None:
        return configuration
    try:
        return _applied(configuration, _read(configuration, environment))
    except (StoreError, ConfigurationError):
        return configuration


def _applied(configuration: Configuration, saved: SavedSettings) -> Configuration:
    return load(configuration.file, configuration.files.again(), saved=saved)


def _read(configuration: Configuration, environment: Mapping[str, str]) -> SavedSettings:
    """Return the version that counts; raises StoreError for one that may not be used, and ConfigurationError without a pepper."""
    place = configuration.settings_place
    if place is None:
        raise StoreError("the file has the OAuth settings")
    with contextlib.closing(SqlTokenStore(place, password=configuration.store_password(environment))) as store:
        state = store.settings()
    if state.saved is None and state.version == state.latest == 0:
        return SavedSettings(0)
    if state.saved is None or state.latest != state.version:
        raise StoreError(f"the store names version {state.version} of the OAuth settings and holds {state.latest}: save them anew")
    if wrong := refusal(state.saved, keys_of(configuration.peppers(environment))):
        raise StoreError(f"version {state.version} of the OAuth settings {wrong}")
    return SavedSettings(state.version, state.saved.values())
