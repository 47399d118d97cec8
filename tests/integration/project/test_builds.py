"""Without a C compiler the package is built all the same, only without its compiled modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.project import ROOT


def test_a_machine_without_a_compiler_builds_what_it_can(tmp_path: Path) -> None:
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "extauthz", tmp_path / "extauthz", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=os.environ | {"CC": "/bin/false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("failed") >= 4, "it is said"
    assert list(tmp_path.rglob("*.so")) == []
    assert list(tmp_path.glob("build/cython/**/*.c")), "nothing was tried"
