"""The package as a wheel brings it, unpacked outside of the tree: nothing of the checkout is found there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.project import ROOT

PARTS = ("extauthz", "config")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def unpacked_wheel(folder: Path) -> Path:
    """Build a wheel without compiled modules from a copy of the tree, and return the folder it is unpacked in."""
    source, place = folder / "source", folder / "installed"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(folder / "dist")],
        cwd=source,
        env=os.environ | {"EXTAUTHZ_PURE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def environment_of(place: Path) -> dict[str, str]:
    """Return an environment in which Python finds what is unpacked, and not the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXTAUTHZ_"))}
    return kept | {"PYTHONPATH": str(place)}
