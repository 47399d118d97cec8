"""Where the routes of a configuration stand, so that a finding about one names its file, line and key."""

from __future__ import annotations

from collections.abc import Mapping

from extauthz.config import document
from extauthz.config.document import Document, KeyPath
from extauthz.config.lints import Lint
from extauthz.config.loader import Configuration
from extauthz.core.routes import Route
from extauthz.errors import Problem


class RoutePlaces:
    """The documents of a configuration, read once more from what it was made of; nothing is read from the disk."""

    def __init__(self, configuration: Configuration) -> None:
        """Find the entry of each route by its name, which no two of them share."""
        self.settings = configuration.document()
        _, *route_files = configuration.yaml_files
        self._entries: dict[str, tuple[Document, KeyPath]] = {}
        for file in route_files:
            source = document.read(file, configuration.files)
            for index, entry in enumerate(document.items(document.mapping(source.data).get("routes"))):
                self._entries[name_of(entry)] = source, ("routes", index, "match")

    def problem(self, route: Route, message: str, lint: Lint) -> Problem:
        """Describe what a lint finds in a route."""
        source, path = self._entries[route.name]
        return source.problem(path, message, lint)

    def label(self, route: Route) -> str:
        """Name a route and its line."""
        source, path = self._entries[route.name]
        return f"{route.match.text!r} ({source.problem(path, '').place})"


def name_of(entry: Mapping[str, object]) -> str:
    """Return the name of a route of plain data, as it stands in a file that loads."""
    return str(entry.get("name") or entry["match"])
