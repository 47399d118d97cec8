"""The drawing of who imports whom is what the source says, and says so when an arrow points the wrong way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.reference import rooms


def package(folder: Path, modules: dict[str, str]) -> Path:
    """Write a package with an architecture test beside it; return the package."""
    for name, source in modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    law = folder / "tests" / "unit" / rooms.LAW
    law.parent.mkdir(parents=True)
    law.write_text('ROWS = (\n    "core",\n    "ports",\n    "adapters.a adapters.b",\n    "serve",\n)\n')
    return folder / "pack"


SOUND = {
    "pack/__init__.py": '"""A package."""\n',
    "pack/ports.py": '"""What is needed?"""\nfrom pack.core.model import Reason\n',
    "pack/core/__init__.py": '"""What is decided?\n\nMore of it."""\n',
    "pack/core/model.py": "import re\n",
    "pack/adapters/a/__init__.py": "",
    "pack/adapters/__init__.py": '"""How does it answer? In many ways."""\n',
    "pack/adapters/b.py": "from ..core import model\nfrom pack import ports, __version__\nfrom . import a\n",
    "pack/serve.py": '"""How does it live?"""\ndef f():\n    import pack.adapters.b\n    from pack.core.model import Reason\n',
}


@pytest.fixture(scope="module")
def drawn() -> str:
    """The section of the package, for which every module of it is read."""
    return rooms.section()


def test_the_page_has_the_drawing_of_the_source(drawn: str) -> None:
    text = rooms.PAGE.read_text("utf-8")
    assert rooms.page(text, drawn) == text, "run `make reference`"


def test_no_arrow_points_upwards_and_there_is_no_cycle(drawn: str) -> None:
    imports = rooms.graph(rooms.PACKAGE)
    assert "core" in imports
    assert rooms.in_circles(imports) == []
    assert rooms.upwards(imports, rooms.law(rooms.PROJECT)) == []
    assert "No arrow points upwards, and there is no cycle." in drawn


def test_imports_of_every_form_are_seen(tmp_path: Path) -> None:
    imports = rooms.graph(package(tmp_path, SOUND))
    assert imports == {
        "adapters": {"core", "ports"},
        "core": frozenset(),
        "ports": {"core"},
        "serve": {"adapters", "core"},
    }
    assert rooms.arrows(imports) == [("adapters", "ports"), ("ports", "core"), ("serve", "adapters")]


def test_a_section_says_what_rooms_ask(tmp_path: Path) -> None:
    part = rooms.section(package(tmp_path, SOUND), tmp_path)
    assert "| `pack/core/` | What is decided? |  |\n" in part
    assert "| `pack/adapters/` | How does it answer? | core, ports |\n" in part
    assert "| `pack/ports.py` | What is needed? | core |\n" in part
    assert "serve\nadapters.a adapters.b\nports\ncore\n" in part
    assert "No arrow points upwards" in part


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("pack/core/model.py", "from pack.serve import f\n", "**In a cycle:** adapters, core, ports, serve."),
        ("pack/core/model.py", "from pack import ports\n", "**Pointing upwards:** core → ports."),
        ("pack/ports.py", "import pack.serve\n", "ports → serve"),
    ],
)
def test_a_wrong_arrow_is_told(tmp_path: Path, name: str, source: str, said: str) -> None:
    part = rooms.section(package(tmp_path, SOUND | {name: source}), tmp_path)
    assert said in part
    assert "No arrow points upwards" not in part


def test_only_what_stands_between_the_markers_is_written() -> None:
    text = f"a\n{rooms.BEGIN}\nold\n{rooms.END}\nb\n"
    assert rooms.page(text, "new\n") == f"a\n{rooms.BEGIN}\nnew\n{rooms.END}\nb\n"
    for lacking in (rooms.BEGIN, rooms.END):
        with pytest.raises(ValueError, match=re.escape(rooms.BEGIN)):
            rooms.page(text.replace(lacking, ""), "new\n")
