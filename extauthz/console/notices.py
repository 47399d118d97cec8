"""What of the console is not as its files say: by the condition that is not met, in words for admins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from extauthz.telemetry.conditions import Condition, ConditionKey

KEYS = (ConditionKey.CONFIGURATION_CURRENT, ConditionKey.RESTART_NOT_NEEDED, ConditionKey.CERTIFICATE_CURRENT)
"""What is looked at."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """One condition that is not met; `text` names places, and never what stands there, which may be a secret."""

    key: ConditionKey
    text: str


class Notices:
    """What there is to be said now, at most once of each condition."""

    def __init__(self) -> None:
        """Begin with everything in order."""
        self._texts: dict[ConditionKey, str] = {}

    def __contains__(self, key: ConditionKey) -> bool:
        """Tell whether a condition is not met."""
        return key in self._texts

    def note(self, key: ConditionKey, text: str | None, *causes: object) -> None:
        """Note why a condition is not met, None for one that is; `causes` are logged, once for each text."""
        if text is None:
            self._texts.pop(key, None)
            return
        if self._texts.get(key) != text:
            for cause in causes:
                _log.error("%s", cause)
        self._texts[key] = text

    def all(self) -> tuple[Notice, ...]:
        """Return them in the order of KEYS."""
        return tuple(Notice(key, self._texts[key]) for key in KEYS if key in self._texts)


def conditions(notices: Sequence[Notice]) -> tuple[Condition, ...]:
    """Return the conditions for the details of /readyz."""
    unmet = {notice.key for notice in notices}
    return tuple(Condition(key, key not in unmet) for key in KEYS)
