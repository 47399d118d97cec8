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


def built(source: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Copy what the package is made of into a folder, and run a command of setup.py there, which must work."""
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "setup.py", *command],
        cwd=source,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def unpacked_wheel(folder: Path) -> Path:
    """Build a wheel without compiled modules from a copy of the tree, and return the folder it is unpacked in."""
    place = folder / "installed"
    built(folder / "source", "--quiet", "bdist_wheel", "--dist-dir", str(folder / "dist"), EXTAUTHZ_PURE="1")
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def environment_of(place: Path) -> dict[str, str]:
    """Return an environment in which Python finds what is unpacked, and not the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXTAUTHZ_"))}
    return kept | {"PYTHONPATH": str(place)}
