"""The configuration as it counts now: what its files say, as far as that is valid and needs no restart."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from extauthz.admin.administration import Administration, Store, prefixes_of, rules_of
from extauthz.admin.rights import Role, role_of
from extauthz.admin.route_map import RouteMap
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.restart import console_needing_restart
from extauthz.config.roles import readable_roles
from extauthz.config.settings import RolesSection
from extauthz.console.notices import Notice, Notices
from extauthz.errors import ConfigurationError, Problem
from extauthz.telemetry.conditions import ConditionKey
from extauthz.telemetry.metric_table import Samples

LOOK = 0.25
"""Seconds between two looks at the files, at most: a role that was removed ends with the next click."""

MOST_PLACES = 5
"""Places that a notice names."""

_STALE = "The configuration was changed and has an error ({places}). What counted before goes on, {roles}. The log says more."
_LESSER = "and nobody has a role that the file no longer gives"
_KEPT = "roles too: whoever lost one in the file still has it"
_WAITING = "These keys were changed, and count when the console starts anew: {places}."
_ERROR = ConditionKey.CONFIGURATION_CURRENT

_log = logging.getLogger(__name__)


class CurrentConfiguration:
    """The last good configuration, less the roles that a later file with an error no longer gives.

    A role is taken as soon as the section that gives it can be read; no file with an error gives one, or gives one back. Whatever
    is not as the files say is noted, and logged once.
    """

    def __init__(
        self, configuration: Configuration, store: Store, *, monotonic: Callable[[], float], now: Callable[[], float]
    ) -> None:
        """Begin with what was loaded at the start; `now` returns seconds since the epoch."""
        self.noted = Notices()
        self._store = store
        self._monotonic = monotonic
        self._now = now
        self._looking = Lock()
        self._looked_at = monotonic()
        self._tried: Files = configuration.files
        self._started_with = configuration
        self._outcomes: Counter[str] = Counter(ok=0, failed=0, restart_needed=0)
        self._configuration: Configuration = configuration
        self._take(configuration)

    def configuration(self) -> Configuration:
        """Return what counts, after a look at the files."""
        # Whoever asks while another thread reads waits for what it finds: a role may be gone.
        with self._looking:
            now = self._monotonic()
            if now - self._looked_at >= LOOK:
                self._looked_at = now
                self._look()
            return self._configuration

    def administration(self) -> Administration:
        """Return what use cases work on."""
        self.configuration()
        return self._administration

    def route_map(self) -> RouteMap:
        """Return what opens what."""
        self.configuration()
        return self._route_map

    def notices(self) -> Sequence[Notice]:
        """Return what is not as the files say."""
        self.configuration()
        return self.noted.all()

    def samples(self) -> Samples:
        """Return how reloads went."""
        samples: Samples = {
            ("extauthz_console_configuration_reloads_total", (result,)): float(count) for result, count in self._outcomes.items()
        }
        stale = _ERROR in self.noted or ConditionKey.RESTART_NOT_NEEDED in self.noted
        samples["extauthz_console_configuration_stale", ()] = float(stale)
        samples["extauthz_console_configuration_last_reload_success_timestamp_seconds", ()] = self._taken_at
        return samples

    def _look(self) -> None:
        if not self._tried.changed():
            return
        end_marker = self._configuration.settings.reload.end_marker
        self._tried = Files()
        try:
            configuration = load(self._configuration.file, self._tried, end_marker=end_marker)
            waiting = _waiting(self._started_with, configuration)
            self._take(configuration)
        except ConfigurationError as error:
            self._refuse(error.problems, end_marker=end_marker)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the console, and gives nobody a role
            _log.exception("the configuration could not be read")
            self._refuse([repr(error)], end_marker=end_marker)
        else:
            self.noted.note(_ERROR, None)
            self.noted.note(
                ConditionKey.RESTART_NOT_NEEDED, _WAITING.format(places=_places(waiting)) if waiting else None, *waiting
            )
            self._outcomes["restart_needed" if waiting else "ok"] += 1

    def _refuse(self, causes: Sequence[Problem] | Sequence[str], *, end_marker: bool) -> None:
        """Go on with what counts, less the roles that are gone."""
        self._outcomes["failed"] += 1
        settings = self._configuration.settings
        given = readable_roles(self._configuration.file, self._tried, end_marker=end_marker)
        if given is not None:
            roles = narrower(settings.roles, given)
            self._configuration = replace(self._configuration, settings=settings.model_copy(update={"roles": roles}))
        text = _STALE.format(places=_places(causes), roles=_KEPT if given is None else _LESSER)
        self.noted.note(_ERROR, text, *(f"configuration not reloaded, the last good one goes on: {cause}" for cause in causes))

    def _take(self, configuration: Configuration) -> None:
        tokens = configuration.settings.tokens
        if tokens is None:
            raise ConfigurationError(
                [configuration.problem(("tokens",), "is missing: the console keeps what it knows in its store")]
            )
        administration = Administration(
            self._store, rules_of(configuration, tokens), prefixes_of(tokens), lambda: configuration.peppers(os.environ)
        )
        self._route_map = RouteMap(configuration.policy, configuration.route_places)
        self._administration = administration
        self._configuration = configuration
        self._taken_at = self._now()


def role_in(section: RolesSection, email: str) -> Role | None:
    """Return the role that a section gives an address."""
    return role_of(email, section.admins, section.super_admins, section.viewers)


def narrower(before: RolesSection, after: RolesSection) -> RolesSection:
    """Return what both give: each address has the lesser of its two roles, and none if one of them gives it none."""
    ranks = tuple(Role)
    lists: dict[Role, list[str]] = {role: [] for role in ranks}
    for email in dict.fromkeys((*before.viewers, *before.admins, *before.super_admins)):
        first, second = role_in(before, email), role_in(after, email)
        if first is not None and second is not None:
            lists[min(first, second, key=ranks.index)].append(email)
    return RolesSection(viewers=lists[Role.VIEWER], admins=lists[Role.ADMIN], super_admins=lists[Role.SUPER_ADMIN])


def _waiting(started: Configuration, after: Configuration) -> list[Problem]:
    """List what a restart waits for, the content of the client's secret too."""
    waiting = console_needing_restart(started, after)
    if _client_secret(started) != _client_secret(after) and not any(each.path == "console.oidc" for each in waiting):
        waiting.append(after.problem(("console", "oidc", "client_secret"), "was changed, and counts when the console starts anew"))
    return waiting


def _client_secret(configuration: Configuration) -> bytes | None:
    try:
        return configuration.console_client_secret(os.environ)
    except ConfigurationError:
        return None


def _places(causes: Sequence[Problem] | Sequence[str]) -> str:
    """Name file, line and key of the first causes, and nothing that stands there."""
    names = [f"{each.path or 'the file'} in {each.place}" if isinstance(each, Problem) else "see the log" for each in causes]
    more = len(names) - MOST_PLACES
    return "; ".join(names[:MOST_PLACES]) + (f"; and {more} more" if more > 0 else "")
