"""Exits 1 if a configuration or its suites are made of files outside of the checkout, of which a pull request may show nothing.

The arguments are the folder of the checkout, the configuration, and the file or folder of the suites, or an empty text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from extauthz.config.files import Files
from extauthz.config.loader import load
from extauthz.tools.suite_cases import files_of


def files_read(config: Path, suites: Path | None) -> Iterator[Path]:
    """Yield each path that the commands read, or would if it were there."""
    files = Files()
    # What is wrong with files is told by the commands themselves, which read the same ones up to the same error.
    with suppress(Exception):
        load(config, files)
    yield config
    yield from sorted(files.paths)
    if suites is not None:
        yield suites
        with suppress(Exception):
            yield from files_of([suites])


def is_inside(path: Path, checkout: Path) -> bool:
    """Tell whether a path leads into the checkout, behind all links, and not to what git keeps there."""
    try:
        below = path.resolve().relative_to(checkout.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        return False
    return ".git" not in (part.casefold() for part in below.parts)


def main() -> None:
    """Name each file outside in an annotation."""
    checkout, config, suites = sys.argv[1:]
    paths = dict.fromkeys(files_read(Path(config), Path(suites) if suites else None))
    outside = [path for path in paths if not is_inside(path, Path(checkout))]
    for path in outside:
        name = json.dumps(str(path)).replace("%", "%25")
        sys.stdout.write(
            f"::error title=extauthz check::{name} is outside of the checkout: name files below it, and no links that leave it.\n"
        )
    sys.exit(1 if outside else 0)


main()
