"""What the documents and the example files say is what the program reads."""

from __future__ import annotations

import re
import shutil
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from extauthz.config import routes
from extauthz.config.document import ConfigurationError
from extauthz.config.loader import load
from extauthz.config.settings import NOT_YET, Settings

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
EXAMPLE = CONFIG / "extauthz.yaml"


def sections(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel] | None]]:
    """Yield the path of every key, with the model that it holds."""
    for name, field in model.model_fields.items():
        inner = next((kind for kind in classes(field.annotation) if issubclass(kind, BaseModel)), None)
        yield (*prefix, name), inner
        if inner:
            yield from sections(inner, (*prefix, name))


def classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes(part)


KEYS = [path for path, _ in sections(Settings)]


def section_text(name: str) -> str:
    """Return the lines of one top-level key of the example, with the comments above it."""
    blocks = re.split(r"\n\n", EXAMPLE.read_text())
    found = [block for block in blocks if re.search(rf"^{name}:", block, re.MULTILINE)]
    assert len(found) == 1, f"{name} stands in {len(found)} blocks of the example"
    return found[0]


def commented_keys() -> dict[tuple[str, str], str]:
    """Return the keys of sections that are commented out, with their lines as they would stand without the #."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    known = {path for path in KEYS if len(path) == 2}
    for line in EXAMPLE.read_text().splitlines():
        if top := re.match(r"([a-z_]+):", line):
            section = top[1]
        if (key := re.match(r"  # ([a-z_]+): ", line)) and (section, key[1]) in known:
            found[section, key[1]] = line.replace("# ", "", 1)
    return found


def test_there_are_keys_to_look_for() -> None:
    assert len(KEYS) >= 45
    assert {("server", "listen"), ("oauth", "audience"), ("tokens", "peppers", "env"), ("envoy", "error_response")} <= set(KEYS)


def test_the_example_loads_without_warnings() -> None:
    assert load(EXAMPLE).warnings == ()


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_the_example_names_every_key(path: tuple[str, ...]) -> None:
    data = yaml.safe_load(EXAMPLE.read_text())
    if len(path) == 1:
        assert path[0] in data
    elif len(path) == 2:
        assert path[1] in data[path[0]] or path in commented_keys()
    else:
        # Keys of list items: in the item, or in the comment that shows the other form, {id, env}.
        assert re.search(rf"[{{ ,]{path[-1]}[:,}}]", section_text(path[0]))


@pytest.mark.parametrize("key", sorted(commented_keys()), ids=".".join)
def test_a_commented_key_is_right_when_it_is_used(key: tuple[str, str], tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path, dirs_exist_ok=True)
    line = commented_keys()[key]
    text = EXAMPLE.read_text().replace(f"  # {line.strip()}", line)
    assert text != EXAMPLE.read_text()
    file = tmp_path / "extauthz.yaml"
    file.write_text(text)
    assert load(file).warnings == ()
    assert yaml.safe_load(text)[key[0]][key[1]] is not None


def test_some_keys_are_commented() -> None:
    """Keeps the two tests above from passing because the comments are written in another form."""
    assert {("server", "socket_group"), ("oauth", "scopes")} <= commented_keys().keys()


def test_the_example_promises_nothing_that_is_refused() -> None:
    commented = {".".join(path) for path in commented_keys()}
    assert commented.isdisjoint(NOT_YET)


def test_defaults_are_those_of_the_example() -> None:
    """A key with a default is shown with it, unless an example says more."""
    examples = {"oauth.name", "oauth.audience", "oauth.user_claim", "oauth.domains", "act_as.allow", "act_as.deny"}
    shown = load(EXAMPLE).settings
    different = set()
    for path, inner in sections(Settings):
        if inner is None and len(path) <= 2:
            holder: Any = shown
            for part in path[:-1]:
                holder = getattr(holder, part)
            field = type(holder).model_fields[path[-1]]
            if not field.is_required() and getattr(holder, path[-1]) != field.get_default(call_default_factory=True):
                different.add(".".join(path))
    assert different == examples


# The documents


def yaml_blocks(text: str) -> list[str]:
    """Return the YAML code blocks of a Markdown text."""
    found = re.findall(r"^( *)```ya?ml[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def whole_vocabulary() -> list[str]:
    """Return the scopes of the example and those that the head of the file of newer scopes adds to them."""
    head = (CONFIG / "routes" / "glean-newer-scopes.yaml").read_text().partition("\n#   2. ")[0].partition("\n#   1. ")[2]
    return [*load(EXAMPLE).settings.scopes, *re.findall(r"[A-Z_:]{3,}", head)]


def check_block(block: str, folder: Path) -> str:
    """Load a block as what it is and return that; raise ConfigurationError for what does not load."""
    shutil.copytree(CONFIG, folder, dirs_exist_ok=True)
    content = "\n".join(line for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    if content.startswith("version:"):
        (folder / "extauthz.yaml").write_text(block)
        load(folder / "extauthz.yaml")
        return "settings"
    if re.search(r"^routes:", content, re.MULTILINE):
        (folder / "block.yaml").write_text(block)
        placed, mistakes = routes.read(folder / "block.yaml", whole_vocabulary())
        *_, more, _ = routes.compile_tables(placed)
        if mistakes or more:
            raise ConfigurationError([*mistakes, *more])
        return "routes"
    return "other"


def test_the_documents_are_there() -> None:
    assert all(document.is_file() for document in documents())


def test_every_yaml_block_of_the_documents_loads(tmp_path: Path) -> None:
    blocks = [(file, block) for file in documents() for block in yaml_blocks(file.read_text())]
    for index, (file, block) in enumerate(blocks):
        try:
            check_block(block, tmp_path / str(index))
        except ConfigurationError as error:
            pytest.fail(f"a block of {file}:\n{block}\n{error}")


MARKDOWN = """\
Some text with ```yaml in it.

```yaml
version: 1
server: {listen: 127.0.0.1:9001}
scopes: [SEARCH]
routes: [mine.yaml]
```

- A list:

  ```yml
  # routes/mine.yaml
  hosts: [api.acme.com]
  routes:
    - {match: "POST /search", scope: SEARCH}
  ```

```console
version: 2
```

```yaml
act_as: {allow: ["*@acme.com"]}
```
"""


def test_a_block_is_found_and_read_as_what_it_is(tmp_path: Path) -> None:
    blocks = yaml_blocks(MARKDOWN)
    assert len(blocks) == 3
    with pytest.raises(ConfigurationError, match=r"routes\[0\]: no such file"):
        check_block(blocks[0], tmp_path / "settings")
    complete = blocks[0].replace("mine", "routes/glean-newer-scopes").replace("[SEARCH]", str(whole_vocabulary()))
    assert check_block(complete, tmp_path / "complete") == "settings"
    assert check_block(blocks[1], tmp_path) == "routes"
    assert check_block(blocks[2], tmp_path) == "other"
    assert check_block(blocks[1].replace("SEARCH", "AGENTS"), tmp_path) == "routes"
    for wrong in ("scope: SERCH", "scope: SEARCH, public: true"):
        with pytest.raises(ConfigurationError):
            check_block(blocks[1].replace("scope: SEARCH", wrong), tmp_path)
    with pytest.raises(ConfigurationError, match="the same pattern"):
        check_block(blocks[1] + '  - {match: "POST /search", scope: CHAT}\n', tmp_path)
