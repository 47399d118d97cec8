"""OAuth settings that admins keep in the store: which keys those are, and how a stored version becomes part of the section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from extauthz.config.document import Document
from extauthz.config.messages import problems_of
from extauthz.config.oauth import OAuthSection
from extauthz.config.presets import PRESETS
from extauthz.config.vocabulary import kept_scope
from extauthz.config.wording import nearest
from extauthz.core.model import Reason
from extauthz.errors import Problem

CONSOLE = "console"
"""The value of oauth.managed_by with which the keys below are kept in the store."""
KEYS = ("enabled", "provider", "issuer", "client_ids", "audience", "domains", "hosted_domains", "scopes")
"""What admins may change. Everything else of the section stands in the file and is never taken from the store."""


@dataclass(frozen=True, slots=True)
class SavedSettings:
    """One version of the OAuth settings in the store: values by KEYS. Version 0 is that of a store without any: OAuth is off."""

    version: int
    body: Mapping[str, object] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What stands in a problem in place of file and line."""
        return place_of(self.version)


Saved = SavedSettings | Reason
"""The settings in the store, or why they are not known: one of the reasons with status 503."""


def place_of(version: int) -> str:
    """Name a version in a problem."""
    return f"{CONSOLE}, version {version}"


def is_managed(source: Document) -> bool:
    """Tell whether the console manages the OAuth settings."""
    section = source.data.get("oauth") if isinstance(source.data, dict) else None
    return isinstance(section, dict) and section.get("managed_by") == CONSOLE


def overlay(source: Document, saved: Saved) -> list[Problem]:
    """Lay a stored version over the section `oauth` of a document that `is_managed`; return what is wrong with either.

    Without a version that could be laid over it, the section holds the keys of the file alone, and `without_oauth` is read.
    """
    section = source.data["oauth"]
    problems = list(_misplaced(source, section))
    if not isinstance(saved, SavedSettings) or not saved.version:
        return problems + _of_the_rest(source, section)
    source.origins |= {("oauth", key): saved.place for key in {*KEYS, *saved.body}}
    known = {key: value for key, value in saved.body.items() if key in KEYS}
    if isinstance(names := known.get("scopes"), list):
        known["scopes"] = [kept_scope(name, _vocabulary(source)) if isinstance(name, str) else name for name in names]
    for key in saved.body.keys() - known.keys():
        hint = nearest(key, KEYS) or f": the keys here are {', '.join(KEYS)}"
        problems.append(source.problem(("oauth", key), f"is not kept in the store{hint}"))
    if known.get("provider") in PRESETS:
        problems.append(source.problem(("oauth", "provider"), f"{known['provider']} is for the file: write managed_by: yaml there"))
    source.data["oauth"] = section | known
    return problems


def _vocabulary(source: Document) -> list[str]:
    names = source.data.get("scopes")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def without_oauth(source: Document, saved: Saved) -> dict[str, object]:
    """Return the data of a managed document to be validated: without the section as long as there is no version."""
    has_version = isinstance(saved, SavedSettings) and saved.version
    return {key: value for key, value in source.data.items() if key != "oauth" or has_version}


def _misplaced(source: Document, section: Mapping[str, object]) -> Iterator[Problem]:
    for key in KEYS:
        if key in section:
            yield source.problem(("oauth", key), "is kept in the store, because managed_by is console: leave it out")
    if "providers" in section:
        message = "the console manages one provider: leave `providers` out, or write managed_by: yaml"
        yield source.problem(("oauth", "providers"), message)
    if not isinstance(source.data.get("tokens"), dict):
        message = (
            "console keeps the settings in the store: write the section `tokens` with store and peppers, "
            "and enabled: false in it where no tokens are issued"
        )
        yield source.problem(("oauth", "managed_by"), message)


def _of_the_rest(source: Document, section: Mapping[str, object]) -> list[Problem]:
    """Find what is wrong with the keys of the file; that the others are missing is no problem."""
    try:
        OAuthSection.model_validate({key: value for key, value in section.items() if key not in (*KEYS, "providers")})
    except ValidationError as error:
        of_the_store = {f"oauth.{key}" for key in KEYS}
        return [each for each in problems_of(error, source, OAuthSection, ("oauth",)) if each.path not in of_the_store]
    return []
