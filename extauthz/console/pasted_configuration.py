"""A configuration that somebody pastes into a page: read from memory alone, so that it is compared and never served.

Whoever pastes may name any file of this machine in it. None is looked at, not even whether it is there: route files are those that
were pasted, or those of the configuration that counts, by the very names that it gives them. Secrets are places in a configuration,
and no place is ever resolved here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from extauthz.admin import oauth_settings
from extauthz.admin.administration import Administration
from extauthz.admin.oauth_settings import CurrentSettings
from extauthz.admin.rights import Actor
from extauthz.config import document
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.saved_settings import SavedSettings
from extauthz.errors import ConfigurationError

MAX_NAME = 200
"""Characters of the name of a route file."""


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
    if counting.saved is None:
        return load(file, files)
    return load(file, files, saved=counting.saved)
