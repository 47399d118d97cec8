"""The configuration that counts: every value, where it stands, and no secret nor the place of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extauthz.config.document import Document, KeyPath, dotted
from extauthz.config.loader import Configuration
from extauthz.config.saved_settings import CONSOLE

DEFAULT = "default"


def plain_settings(configuration: Configuration) -> dict[str, Any]:
    """Return the settings as they count: defaults filled in, short issuers written out, places of secrets hidden."""
    settings = configuration.settings.model_dump(mode="json")
    if settings["oauth"] is None and configuration.saved is not None:
        settings["oauth"] = {"managed_by": CONSOLE}
    return settings


def explained(configuration: Configuration) -> dict[str, Any]:
    """Return the settings, and for each value its file and line, or "default"; and the same of the routes.

    What was saved in the console has its version there.
    """
    settings = plain_settings(configuration)
    source = configuration.document()
    return {
        "file": str(configuration.file),
        "hash": configuration.files.digest,
        "settings": settings,
        "sources": dict(_sources(settings, (), source)),
        "routes": dict(sorted(configuration.route_places.items())),
    }


def _sources(value: object, path: KeyPath, source: Document) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _sources(inner, (*path, name), source)
        return
    if path in source.lines:
        yield dotted(path), f"{source.file}:{source.lines[path]}"
    else:
        is_saved = path[0] == "oauth" and path[:2] in source.origins and str(path[1]) in source.data["oauth"]
        yield dotted(path), source.origins[path[:2]] if is_saved else DEFAULT
