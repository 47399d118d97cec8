"""Without a C compiler the package is built all the same, only without its compiled modules."""

from __future__ import annotations

from pathlib import Path

from tests.support.installed import built


def test_a_machine_without_a_compiler_builds_what_it_can(tmp_path: Path) -> None:
    done = built(tmp_path, "build_ext", "--inplace", CC="/bin/false")
    assert done.stderr.count("failed") >= 4, "it is said"
    assert list(tmp_path.rglob("*.so")) == []
    assert list(tmp_path.glob("build/cython/**/*.c")), "nothing was tried"
