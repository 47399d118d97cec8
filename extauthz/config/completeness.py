"""Whether a file was written to its end: a part of a YAML file is often valid YAML, which lacks the routes that deny."""

from __future__ import annotations

from pathlib import Path

from extauthz.config.document import Document
from extauthz.config.files import Files
from extauthz.config.values import Section
from extauthz.errors import Problem

END = "# end"


class ReloadSection(Section):
    """When a file counts: always, or when its last line is the comment `# end`."""

    end_marker: bool = False


def is_wanted(source: Document) -> bool:
    """Tell whether extauthz.yaml asks for the end of each file, whatever else is wrong with it."""
    section = source.data.get("reload") if isinstance(source.data, dict) else None
    return isinstance(section, dict) and section.get("end_marker") is True


def unfinished(file: Path, files: Files) -> list[Problem]:
    """Say that the end of a file is missing; white space behind it does not count."""
    try:
        lines = files.read(file).rstrip().split(b"\n")
    except (OSError, ValueError):
        # That it cannot be read is said where it is read.
        return []
    if lines[-1] == END.encode():
        return []
    message = f"its last line is not the comment '{END}', for which reload.end_marker asks: finish the file, or write that line"
    return [Problem(str(file), len(lines), "", message)]
