"""OAuth settings: what counts, its versions, and a new one that an admin saves; see `trial` for asking an issuer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from extauthz.adapters.store.settings_rows import SettingsKey, SettingsVersion, keys_of, refusal
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refusal, Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.config.loader import Configuration, load
from extauthz.config.oauth import ProviderEntry
from extauthz.config.saved_settings import KEYS, SavedSettings, place_of
from extauthz.errors import ChangeRefused, ConfigurationError, Problem

Values = Mapping[str, object]
"""Settings by KEYS, as the configuration reads them: an issuer is written out, what is left out has no entry."""
MAX_PAGE = 1000
"""Versions of one page of the history."""


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """One saved version: `at` in seconds since the epoch. `problem` is why sidecars do not use it, None for one that they may."""

    version: int
    at: int
    actor: str
    source: str
    values: Values
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CurrentSettings:
    """The settings that count, one entry of `providers` for each; `place` is file and line, or the version, that they come from.

    They can be changed here if `is_managed`: then `saved` is the version, None before the first.
    """

    is_managed: bool
    place: str
    enabled: bool
    providers: tuple[Values, ...]
    saved: SavedVersion | None = None

    @property
    def version(self) -> int:
        """The number that a change expects to be the last one."""
        return self.saved.version if self.saved else 0


@dataclass(frozen=True, slots=True)
class SettingsDifference:
    """One of the settings before and after a change; None where it is left out."""

    field: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class CheckedSettings:
    """Settings that nothing stands against, and the configuration that they make."""

    values: Values
    configuration: Configuration

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and worth a look before it is saved: an issuer that is asked about each token, domains of everybody."""
        place = place_of(self.configuration.settings_version)
        return tuple(f"{each.path}: {each.message}" for each in self.configuration.warnings if each.file == place)


def current(administration: Administration, configuration: Configuration, actor: Actor) -> CurrentSettings | Refused:
    """Return the settings that count: those of the store where the console manages them, else those of the file."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    if configuration.saved is None:
        section = configuration.settings.oauth
        enabled = section is not None and section.enabled
        entries = tuple(values_of(entry, enabled=enabled) for entry in (section.entries if section else ()))
        return CurrentSettings(False, configuration.problem(("oauth",), "").place, enabled, entries)
    state = administration.store.settings()
    if state.saved is None:
        return CurrentSettings(True, place_of(state.version), False, ())
    version = _checked_version(administration, state.saved)
    if version.problem is None:
        version = replace(version, problem=_misfit(configuration, version))
    enabled = version.problem is None and bool(version.values.get("enabled", True))
    return CurrentSettings(True, place_of(state.version), enabled, (version.values,), version)


def history(
    administration: Administration, actor: Actor, *, before: int | None = None, limit: int = 100
) -> tuple[SavedVersion, ...] | Refused:
    """Return saved versions before a number, or the newest ones, the newest first."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    if not 1 <= limit <= MAX_PAGE:
        return Refused.because("limit", f"write a number from 1 to {MAX_PAGE}")
    return tuple(_checked_version(administration, row) for row in administration.store.settings_page(before, limit))


def difference(before: Values, after: Values) -> tuple[SettingsDifference, ...]:
    """Return what differs between two versions, in the order of the form."""
    pairs = ((key, before.get(key), after.get(key)) for key in KEYS)
    return tuple(SettingsDifference(key, one, other) for key, one, other in pairs if one != other)


def check(configuration: Configuration, actor: Actor, wanted: Values, *, version: int = 0) -> CheckedSettings | Refused:
    """Return settings as they would be saved behind a version; the fields of refusals are KEYS, `actor` and `managed_by`.

    Values may be written as in the configuration: several in one text with commas, and the short issuers of the admin form. Empty
    ones count as left out.
    """
    if refused := forbidden(actor, Operation.SETTINGS):
        return refused
    if configuration.saved is None:
        place = configuration.problem(("oauth",), "").place
        return Refused.because("managed_by", f"{place} has the OAuth settings: change them there, or write managed_by: console")
    saved = SavedSettings(version + 1, {key: value for key, value in wanted.items() if value not in (None, "", [], ())})
    try:
        loaded = load(configuration.file, configuration.files.again(), saved=saved)
    except ConfigurationError as error:
        return Refused(tuple(_as_refusal(problem, saved) for problem in error.problems))
    section = loaded.settings.oauth
    entries = section.entries if section else []
    if section is None or len(entries) != 1:
        raise ConfigurationError([configuration.problem(("oauth",), "the console manages one provider")])
    return CheckedSettings(values_of(entries[0], enabled=section.enabled), loaded)


def save(
    administration: Administration, configuration: Configuration, actor: Actor, wanted: Values, at: int, *, expected: int
) -> SavedVersion | Refused:
    """Save settings behind the version that is `expected` to count, which sidecars follow within two seconds.

    Refuses another version than expected, so that two admins do not undo each other's work: the field is `version`.
    """
    match check(configuration, actor, wanted, version=expected):
        case Refused() as refused:
            return refused
        case CheckedSettings(values):
            return _add(administration, actor, values, at, expected)


def go_back(
    administration: Administration, configuration: Configuration, actor: Actor, version: int, at: int, *, expected: int
) -> SavedVersion | Refused:
    """Save once more what an earlier version says; the versions between stay in the history."""
    if refused := forbidden(actor, Operation.SETTINGS):
        return refused
    rows = administration.store.settings_page(version + 1, 1)
    if not rows or rows[0].version != version:
        return Refused.because("version", f"there is no version {version} of the OAuth settings")
    earlier = _checked_version(administration, rows[0])
    if earlier.problem is not None:
        return Refused.because("version", f"version {version} {earlier.problem}")
    return save(administration, configuration, actor, earlier.values, at, expected=expected)


def values_of(entry: ProviderEntry, *, enabled: bool) -> dict[str, Any]:
    """Return what admins may change of a provider in the configuration."""
    fields = entry.model_dump(mode="json", include=set(KEYS)) | {"enabled": enabled}
    if entry.row.opaque:
        # There is one for everybody, which nobody writes.
        fields["issuer"] = None
    return {key: fields[key] for key in KEYS if fields[key] is not None}


def _add(administration: Administration, actor: Actor, values: Values, at: int, expected: int) -> SavedVersion | Refused:
    pepper_id, pepper = next(iter(administration.unlocked(at).items()))
    state = administration.store.settings()
    if state.version == expected and state.saved is not None and state.saved.pepper_id == pepper_id:
        counting = _checked_version(administration, state.saved)
        if counting.problem is None and not difference(counting.values, values):
            return Refused.because("version", f"nothing differs from version {expected}")
    try:
        row = administration.store.save_settings(values, expected, SettingsKey.of(pepper_id, pepper), actor.change(at))
    except ChangeRefused as error:
        return Refused.because("version", str(error))
    return SavedVersion(row.version, row.at, row.actor, row.source, values)


def _checked_version(administration: Administration, row: SettingsVersion) -> SavedVersion:
    problem = refusal(row, keys_of(administration.read_peppers()))
    return SavedVersion(row.version, row.at, row.actor, row.source, {} if problem else row.values(), problem)


def _misfit(configuration: Configuration, version: SavedVersion) -> str | None:
    """Return why a version does not fit the file any more, such as scopes that were removed from it."""
    try:
        load(configuration.file, configuration.files.again(), saved=SavedSettings(version.version, version.values))
    except ConfigurationError as error:
        return f"does not fit the configuration: {'; '.join(map(str, error.problems))}"
    return None


def _as_refusal(problem: Problem, saved: SavedSettings) -> Refusal:
    """Put a problem beside the field that it is about; one of the file is about the provider that was chosen."""
    if problem.file == saved.place:
        return Refusal(problem.path.partition("[")[0], problem.message)
    return Refusal("provider", f"this does not fit the file: {problem}")
