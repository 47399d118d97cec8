"""The section roles of a file that has an error elsewhere."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from extauthz.config import completeness, document
from extauthz.config.files import Files
from extauthz.config.settings import RolesSection

KEY = "roles"


def readable_roles(file: Path, files: Files, *, end_marker: bool) -> RolesSection | None:
    """Return whom extauthz.yaml gives which role, nobody where it has no such section; None when that cannot be told.

    That is so for a file that is no YAML mapping, one without its end where it is marked, and an error in the section itself.
    """
    source = document.read(file, files)
    if not isinstance(source.data, dict) or any(problem.path.partition(".")[0] == KEY for problem in source.problems):
        return None
    if (end_marker or completeness.is_wanted(source)) and completeness.unfinished(file, files):
        return None
    try:
        return RolesSection.model_validate(source.data.get(KEY, {}))
    except ValidationError:
        return None
