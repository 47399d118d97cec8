"""The configuration that counts: every value, where it stands, and no secret nor the place of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extauthz.config import document
from extauthz.config.document import Document, KeyPath, dotted
from extauthz.config.loader import Configuration

DEFAULT = "default"


def plain_settings(configuration: Configuration) -> dict[str, Any]:
    """Return the settings as they count: defaults filled in, short issuers written out, places of secrets hidden."""
    return configuration.settings.model_dump(mode="json")


def explained(configuration: Configuration) -> dict[str, Any]:
    """Return the settings, and for each value its file and line, or "default"; and the same of the routes."""
    settings = plain_settings(configuration)
    source = document.read(configuration.file, configuration.files)
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
    yield dotted(path), f"{source.file}:{source.lines[path]}" if path in source.lines else DEFAULT
