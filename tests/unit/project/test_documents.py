"""What the documents and the example files say is what the program reads."""

from __future__ import annotations

import re
import shutil
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from extauthz.cli import main
from extauthz.config import routes, tables
from extauthz.config.loader import load
from extauthz.config.settings import Settings
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Verification
from extauthz.errors import ConfigurationError
from tests.support.documents import CONFIG, EXAMPLE, whole_vocabulary, yaml_blocks
from tests.support.project import ROOT

SEVERAL, OPENID = CONFIG / "several-providers.yaml", CONFIG / "openid-providers.yaml"

# Without them the section is no YAML any more: they begin it, the list of providers, or an entry of it.
NEEDED = {"oauth", "provider", "providers"}


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


KEYS = [*(path for path, _ in sections(Settings)), ("oauth", "providers")]


def examples_of(path: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files that show a key: no provider uses all keys of the oauth section."""
    return (EXAMPLE, SEVERAL, OPENID) if path[0] == "oauth" else (EXAMPLE,)


def section_text(text: str, name: str) -> str:
    """Return the lines from one top-level key to the next."""
    found = re.findall(rf"^{name}:.*\n(?:(?:[ #].*)?\n)*", text, re.MULTILINE)
    assert len(found) <= 1, f"{name} stands {len(found)} times in the example"
    return "".join(found)


def commented_keys(text: str) -> dict[tuple[str, str], str]:
    """Return the keys of sections that are commented out, with their lines."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    known = {path for path in KEYS if len(path) == 2}
    for line in text.splitlines():
        if top := re.match(r"([a-z_]+):", line):
            section = top[1]
        if (key := re.match(r" +# ([a-z_]+): ", line)) and (section, key[1]) in known:
            found[section, key[1]] = line
    return found


def keys_in(text: str) -> set[tuple[str, ...]]:
    """Return the keys of an example, and of its sections and providers; the ones that are commented out are among them."""
    data = yaml.safe_load(text)
    found: set[tuple[str, ...]] = {(name,) for name in data} | commented_keys(text).keys()
    for name, section in data.items():
        entries = section.get("providers", []) if isinstance(section, dict) else []
        found |= {(name, key) for mapping in (section, *entries) if isinstance(mapping, dict) for key in mapping}
    return found


def names(text: str, path: tuple[str, ...]) -> bool:
    """Tell whether an example shows a key."""
    if len(path) <= 2:
        return path in keys_in(text)
    # Keys of list items and of secrets: there, or in the comment that shows the other form, {id, env}.
    return bool(re.search(rf"[{{ ,]{path[-1]}[:,}}]", section_text(text, path[0])))


def test_there_are_keys_to_look_for() -> None:
    assert len(KEYS) >= 60
    assert {("server", "listen"), ("oauth", "audience"), ("oauth", "users"), ("oauth", "client_secret", "file")} <= set(KEYS)
    assert {("tokens", "peppers", "env"), ("envoy", "error_response"), ("limits", "verdicts")} <= set(KEYS)


@pytest.mark.parametrize("example", [EXAMPLE, SEVERAL, OPENID], ids=lambda file: file.stem)
def test_an_example_loads_without_warnings(example: Path) -> None:
    assert load(example).warnings == ()


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_the_examples_name_every_key(path: tuple[str, ...]) -> None:
    assert any(names(example.read_text(), path) for example in examples_of(path))


@pytest.mark.parametrize("path", [path for path in KEYS if path[0] == "oauth" and path[-1] not in NEEDED], ids=".".join)
def test_a_key_that_no_example_names_is_missed(path: tuple[str, ...]) -> None:
    """Keeps the test above from passing whatever the examples say."""
    key = rf"^.*[{{ ]{path[-1]}[:,}}].*\n"
    without = [re.sub(key, "", example.read_text(), flags=re.MULTILINE) for example in examples_of(path)]
    assert not any(names(text, path) for text in without)
    assert sum(len(keys_in(text)) for text in without) > 60


NEEDS_ITS_NEIGHBOUR = ("console", "public_url")
"""The comment of trusted_proxies says so: without the networks of the proxy there is a warning."""
COMMENTED = [(example, key) for example in (EXAMPLE, SEVERAL, OPENID) for key in sorted(commented_keys(example.read_text()))]


@pytest.mark.parametrize(("example", "key"), COMMENTED, ids=lambda part: part.stem if isinstance(part, Path) else ".".join(part))
def test_a_commented_key_is_right_when_it_is_used(example: Path, key: tuple[str, str], tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path, dirs_exist_ok=True)
    line = commented_keys(example.read_text())[key]
    text = example.read_text().replace(f"{line}\n", f"{line.replace('# ', '', 1)}\n")
    assert text != example.read_text()
    file = tmp_path / "used.yaml"
    file.write_text(text)
    assert [warning.path for warning in load(file).warnings] == (["console.public_url"] if key == NEEDS_ITS_NEIGHBOUR else [])
    assert key in keys_in(text)
    assert key not in commented_keys(text)


def test_some_keys_are_commented() -> None:
    """Keeps the tests above from passing because the comments are written in another form."""
    assert {("server", "socket_group"), ("oauth", "scopes")} <= commented_keys(EXAMPLE.read_text()).keys()
    assert {("oauth", "jwks_uri"), ("oauth", "introspection_uri")} <= commented_keys(SEVERAL.read_text()).keys()


def test_every_kind_of_provider_is_shown() -> None:
    """And each of their rows: both forms of an issuer of Okta, and every way to verify a token."""
    shown = {(rules.provider.name, rules.verification) for rules in load(SEVERAL).providers}
    assert {name for name, _ in shown} == PROVIDERS.keys()
    assert {Verification.JWKS, Verification.INTROSPECTION, Verification.TOKENINFO} == {way for _, way in shown}
    assert {rules.provider for rules in load(SEVERAL).providers} >= set(PROVIDERS["okta"])


def test_defaults_are_those_of_the_example() -> None:
    """A key with a default is shown with it, unless an example says more."""
    examples = {"oauth.name", "oauth.issuer", "oauth.audience", "oauth.user_claim", "oauth.domains", "act_as.allow", "act_as.deny"}
    examples |= {"oauth.verification"}  # its default is that of the provider
    examples |= {"internal_token.enabled"}
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


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


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
        placed, problems = routes.read(folder / "block.yaml", list(whole_vocabulary()))
        *_, more, _ = tables.compile_tables(placed)
        if problems or more:
            raise ConfigurationError([*problems, *more])
        return "routes"
    data = yaml.safe_load(block)
    kinds = "apiVersion|resources|jobs|repos|openapi|rules|people"
    if re.search(rf"typed_config:|load_assignment:|^(?:{kinds}):", content, re.MULTILINE):
        return "of another program"
    if isinstance(data, list):
        # Orders of `token create --from-file`.
        file = folder / "orders.yaml"
        file.write_text(block)
        (folder / "data").mkdir()
        wanted = CliRunner().invoke(
            main, ["token", "create", "--from-file", str(file), "--config", str(folder / "extauthz.yaml"), "--json"]
        )
        assert wanted.exit_code == 0, wanted.output
        return "orders"
    settings = yaml.safe_load((folder / "extauthz.yaml").read_text()) | data
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    if settings["reload"]["end_marker"]:
        for file in (folder / "extauthz.yaml", *(folder / name for name in settings["routes"])):
            file.write_text(f"{file.read_text().rstrip()}\n# end\n")
    load(folder / "extauthz.yaml")
    return "section"


def test_the_documents_are_there() -> None:
    found = documents()
    assert len(found) > 20
    assert all(document.is_file() for document in found)


OF_OTHERS = {
    "ci.md": (2, "a workflow of GitHub and hooks of pre-commit: test_action.py"),
    "cluster-secrets.md": (4, "classes of the CSI driver, and certificates: test_chart.py"),
    "deploy.md": (2, "a kustomization and a cluster of Envoy: test_kubernetes.py"),
    "envoy-gateway.md": (1, "Envoy Gateway's own configuration, of which there is no definition to load it by"),
    "internal-token.md": (2, "a filter and a cluster of Envoy: test_envoy_internal_token.py"),
    "tools.md": (3, "a description of an API, a mapping file and a suite: test_tutorial.py"),
    "tracing.md": (1, "a tracer of Envoy: test_envoy_takes_the_tracer_of_the_page"),
}
"""How many blocks of a page other programs read, and where that is tried."""


def test_every_yaml_block_of_the_documents_loads(tmp_path: Path) -> None:
    blocks = [(file, block) for file in documents() for block in yaml_blocks(file.read_text())]
    of_others: Counter[str] = Counter()
    for index, (file, block) in enumerate(blocks):
        try:
            of_others[file.name] += check_block(block, tmp_path / str(index)) == "of another program"
        except ConfigurationError as error:
            pytest.fail(f"a block of {file}:\n{block}\n{error}")
    assert +of_others == {name: count for name, (count, _) in OF_OTHERS.items()}


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
    complete = blocks[0].replace("mine", "routes/glean-newer-scopes").replace("[SEARCH]", str(list(whole_vocabulary())))
    assert check_block(complete, tmp_path / "complete") == "settings"
    assert check_block(blocks[1], tmp_path) == "routes"
    assert check_block(blocks[2], tmp_path / "section") == "section"
    with pytest.raises(ConfigurationError, match="allows: unknown key"):
        check_block(blocks[2].replace("allow", "allows"), tmp_path / "unknown")
    assert check_block(blocks[1].replace("SEARCH", "AGENTS"), tmp_path) == "routes"
    for wrong in ("scope: SERCH", "scope: SEARCH, public: true"):
        with pytest.raises(ConfigurationError):
            check_block(blocks[1].replace("scope: SEARCH", wrong), tmp_path)
    with pytest.raises(ConfigurationError, match="the same pattern"):
        check_block(blocks[1] + '  - {match: "POST /search", scope: CHAT}\n', tmp_path)
