"""Every problem that can be made in the configuration, one file each in config/bad: what is said about it, word by word.

What the files say of themselves stands in tests/support/broken_files.py.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

import extauthz.config
from extauthz import addresses
from extauthz.config.loader import load
from extauthz.config.notes import notes_of
from extauthz.errors import ConfigurationError
from extauthz.responses import denials
from extauthz.tools import lint_ignores, lint_routes, lint_settings
from extauthz.tools.lint import lints
from tests.support import broken_files
from tests.support.broken_files import expected
from tests.support.project import TESTS

BASE = TESTS / "config" / "base"
BAD = sorted((TESTS / "config" / "bad").iterdir())
LINT_BASE = TESTS / "config" / "lint_base"
LINTED = sorted((TESTS / "config" / "lints").iterdir())
SECRET = "hunter2"


def lay_out(bad: Path, folder: Path) -> None:
    """Write the base configuration into the folder, and the bad files over it."""
    broken_files.lay_out(bad, folder, BASE)


def problems_in(folder: Path) -> list[str]:
    """Load from inside the folder, so that the files are named as they are in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(ConfigurationError) as raised:
            load(Path("extauthz.yaml"))
    return [str(problem) for problem in raised.value.problems]


def test_the_base_loads(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    assert load(tmp_path / "extauthz.yaml").settings.version == 1


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.stem)
def test_the_complete_list_of_problems(bad: Path, tmp_path: Path) -> None:
    lay_out(bad, tmp_path)
    assert problems_in(tmp_path) == expected(bad)


def test_a_secret_stands_in_no_message(tmp_path: Path) -> None:
    holding_a_secret = [bad for bad in BAD if bad.is_dir() or SECRET.encode() in bad.read_bytes()]
    assert len(holding_a_secret) >= 14
    for index, bad in enumerate(holding_a_secret):
        lay_out(bad, tmp_path / str(index))
        assert SECRET not in "\n".join(problems_in(tmp_path / str(index))), bad


def test_many_problems_are_told_in_one_run(tmp_path: Path) -> None:
    """One of them hides none of the others: sections, keys, values, the route file and what stands between two lines."""
    bad = next(bad for bad in BAD if bad.name == "many_at_once")
    lay_out(bad, tmp_path)
    found = problems_in(tmp_path)
    assert len(found) == 35
    assert {re.split(r"[.:\[]", problem.split(": ")[1])[0] for problem in found if problem.startswith("extauthz.yaml")} >= {
        "version",
        "server",
        "oauth",
        "tokens",
        "act_as",
        "identity",
        "scopes",
        "routes",
        "limits",
    }


# Functions with places that no file can reach, because they need another file system, another environment, a file that is not YAML
# of a size, settings in a store, or thousands of routes: test_config_document.py, test_config_settings.py, test_saved_settings.py
# and test_route_review.py have them. The last line of `_message` is for errors that no key of today can have.
ELSEWHERE = {
    "document.read",
    "document.problem",
    "saved_settings.overlay",
    "sendable.secrets",
    "sendable.password",
    "loader._peppers",
    "loader.read_secrets",
    "internal_token.private_keys",
    "values.read_secret",
    "messages._message",
    "tables._warnings",
}
OF_OTHERS = {"restart", "suites", "plain_data", "openapi_map"}
"""Modules whose messages are those of a reload, and of files that other commands read."""
NAMES = {module.name for module in pkgutil.iter_modules(extauthz.config.__path__)} - OF_OTHERS
TRACED = [
    *(importlib.import_module(f"extauthz.config.{name}") for name in sorted(NAMES)),
    *(addresses, denials, lint_ignores, lint_routes, lint_settings),
]


def test_every_place_that_finds_an_error_or_a_lint_has_a_file(tmp_path: Path) -> None:
    for number, file in enumerate((*BAD, *LINTED)):
        broken_files.lay_out(file, tmp_path / str(number), BASE if file in BAD else LINT_BASE)
    looks = [partial(problems_in if file in BAD else linted, tmp_path / str(number)) for number, file in enumerate((*BAD, *LINTED))]
    assert broken_files.silent_places(TRACED, looks) == ELSEWHERE


def linted(folder: Path) -> None:
    """Look for everything that is not an error."""
    loaded = load(folder / "extauthz.yaml")
    assert [*notes_of(loaded), *lints(loaded)]


def test_the_places_are_found() -> None:
    """Keeps the test above from passing because nothing was looked at."""
    assert sum(1 for module in TRACED for _ in broken_files.places(module)) >= 150
