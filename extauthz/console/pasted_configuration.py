"""A configuration that somebody pastes into a page: read from memory alone, so that it is compared and never served.

Whoever pastes may name any file of this machine in it. None is looked at, not even whether it is there: route files are those that
were pasted, or those of the configuration that counts, by the very names that it gives them. Secrets are places in a configuration,
and no place is ever resolved here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from extauthz.admin import oauth_settings
from extauthz.admin.administration import Administration
from extauthz.admin.oauth_settings import CurrentSettings
from extauthz.admin.rights import Actor
from extauthz.config import document
from extauthz.config.document import Document
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.saved_settings import SavedSettings
from extauthz.errors import ConfigurationError, Problem

MAX_NAME = 200
"""Characters of the name of a route file."""
MAX_SCOPES, MAX_ROUTES = 500, 1_000
"""Names and routes that may be pasted; where more count, as many as count. Reading and comparing 5,000 took 6 to 9 seconds."""
VALUES_OF_A_ROUTE = 10
"""Keys, values and errors that may be pasted for each route of MAX_ROUTES, whatever they are."""
_MORE = "at most; extauthz diff compares more"


def with_saved_settings(configuration: Configuration, administration: Administration, actor: Actor) -> Configuration:
    """Return what sidecars serve: where the console manages the OAuth settings, with those that count now."""
    if configuration.saved is None:
        return configuration
    match oauth_settings.current(administration, configuration, actor):
        case CurrentSettings(saved=None, is_managed=True):
            saved = SavedSettings(0)
        case CurrentSettings(saved=version) if version is not None and version.problem is None:
            saved = SavedSettings(version.version, version.values)
        case _:
            return configuration
    return load(configuration.file, configuration.files.again(), saved=saved)


def route_file_names(configuration: Configuration) -> tuple[str, ...]:
    """Return the route files that count, as extauthz.yaml names them."""
    return tuple(dict.fromkeys(configuration.settings.routes))


def read_pasted(counting: Configuration, settings: str | None, routes: Mapping[str, str]) -> Configuration:
    """Read pasted texts in place of files; raises ConfigurationError with every problem.

    `settings` is extauthz.yaml, None for the one that counts; `routes` are route files by the names that it gives them. What is not
    pasted is as in `counting`, from memory.
    """
    file = Path(counting.file.name)
    contents = {Path(name): counting.files.contents[counting.file.parent / name] for name in route_file_names(counting)} | {
        Path(name): text.encode() for name, text in routes.items()
    }
    contents[file] = counting.files.contents[counting.file] if settings is None else settings.encode()
    files = Files(contents)
    source = document.read(file, files)
    # What is missing would be looked for on the disk, to say why it cannot be read.
    missing = [
        source.problem(("routes", index), f"{name} was not pasted, and is no route file of the configuration that counts")
        for index, name in document.strings(source, "routes")
        if name and file.parent / name not in contents
    ]
    if missing:
        raise ConfigurationError([*source.problems, *missing])
    pasted = [source] if settings is not None else []
    pasted += [document.read(Path(name), files) for name in routes]
    too_much = [*_beyond_limits(counting, pasted)]
    if too_much:
        raise ConfigurationError(too_much)
    if counting.saved is None:
        return load(file, files)
    return load(file, files, saved=counting.saved)


def _beyond_limits(counting: Configuration, pasted: list[Document]) -> Iterator[Problem]:
    """Yield what is too much to be compared; a problem stands where a limit is passed first."""
    most_scopes, most_routes = max(MAX_SCOPES, len(counting.settings.scopes)), max(MAX_ROUTES, len(counting.route_places))
    most_values = VALUES_OF_A_ROUTE * most_routes
    routes = values = 0
    for source in pasted:
        data = document.mapping(source.data)
        scopes = len(document.items(data.get("scopes")))
        if scopes > most_scopes:
            yield source.problem(("scopes",), f"has {scopes:,} names: {most_scopes:,} are compared {_MORE}")
        # Those of extauthz.yaml are names of files.
        own = 0 if source.file == counting.file.name else len(document.items(data.get("routes")))
        before, routes = routes, routes + own
        if before <= most_routes < routes:
            yield source.problem(("routes",), f"this makes {routes:,} routes: {most_routes:,} are compared {_MORE}")
        before, values = values, values + len(source.lines) + len(source.problems)
        if before <= most_values < values:
            yield source.problem((), f"this makes {values:,} keys and values: {most_values:,} are compared {_MORE}")
