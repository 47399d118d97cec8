"""docs/routes.md: every key has a section with an example, and what the examples say of requests is so."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from extauthz.config.routes import RouteFile, RouteLine
from tests.support.documents import whole_vocabulary, yaml_blocks
from tests.support.project import ROOT
from tests.support.world import MakeWorld, bearer, claims, oauth, sign

PAGE = (ROOT / "docs" / "routes.md").read_text(encoding="utf-8")
KEYS = sorted({*RouteLine.model_fields, *RouteFile.model_fields} - {"routes"})
ASKED = re.compile(
    r"^# ([A-Z]+) (/\S*)((?: @\S+)?)((?: [A-Za-z-]+=\S+)*) +(nobody|[A-Z]+(?: [A-Z,]+)?) +→ ([0-9]{3})((?: [a-z_]+)?)$"
)


@dataclass(frozen=True)
class Example:
    """One comment of a block: a request, who sends it, and the answer."""

    block: str
    line: str
    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]
    who: str
    status: int
    reason: str


def sections() -> dict[str, str]:
    """Return the text of each section by its heading."""
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def examples() -> list[Example]:
    found = []
    for block in yaml_blocks(PAGE):
        for line in block.splitlines():
            if "→" not in line:
                continue
            match = ASKED.match(line)
            assert match, f"not read: {line}"
            method, path, host, headers, who, status, reason = match.groups()
            pairs = tuple((name.lower(), value) for name, _, value in (each.partition("=") for each in headers.split()))
            host = host.removeprefix(" @") or "api.acme.com"
            found.append(Example(block, line, method, path, host, pairs, who, int(status), reason.strip()))
    return found


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_section_with_an_example(key: str) -> None:
    section = sections()[key]
    assert any(re.search(rf"(?:^|[{{ ]){key}:", block, re.MULTILINE) for block in yaml_blocks(section)), key
    assert f"](#{key})" in PAGE, "in the table of the keys"


def test_there_are_examples_of_every_kind() -> None:
    assert len(examples()) > 50
    assert {example.who.partition(" ")[0] for example in examples()} == {"nobody", "USER", "GLOBAL", "ANONYMOUS", "OAUTH"}
    blocks = {example.block for example in examples()}
    assert sum("upstream:" in block or "encoded_slashes" in block for block in blocks) >= 3


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.line.removeprefix("# "))
def test_what_an_example_says_is_so(example: Example, make_world: MakeWorld) -> None:
    world = make_world(example.block, scopes=list(whole_vocabulary()))
    kind, _, scopes = example.who.partition(" ")
    headers: list[tuple[str, str | bytes]] = list(example.headers)
    if kind == "OAUTH":
        headers += oauth(sign(claims())).items()
    elif kind != "nobody":
        headers += bearer(world.token(kind, *scopes.split(","))).items()
    if kind == "GLOBAL":
        headers.append(("x-scio-actas", "ana@acme.com"))
    answer = world.check(f"{example.method} {example.path}", headers, host=example.host)
    assert answer.status == example.status, answer.reason
    if example.reason:
        assert answer.reason == example.reason
    else:
        assert answer.allowed
