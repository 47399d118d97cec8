"""Pasted configurations: read from memory, whatever they name, and with the problems of what was pasted alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.config.loader import Configuration, load
from extauthz.console.pasted_configuration import read_pasted, route_file_names
from extauthz.errors import ConfigurationError
from tests.support.command_line import SETTINGS, folder

__all__ = ["folder"]

SECRET = "a secret of this machine, with 32 bytes and more"


def text_of(**changes: Any) -> str:
    return yaml.safe_dump({key: value for key, value in (SETTINGS | changes).items() if value is not None})


@pytest.fixture
def counting(folder: Path) -> Configuration:
    return load(folder / "extauthz.yaml")


@pytest.fixture
def looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is opened, listed or looked for from now on."""
    seen: list[str] = []

    def noting(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def noted(path: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, noted)

    for name in ("open", "stat", "lstat", "scandir", "listdir", "readlink", "access"):
        noting(name)
    return seen


def problems(counting: Configuration, settings: str | None, **routes: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        read_pasted(counting, settings, {name.replace("_", "."): text for name, text in routes.items()})
    return [str(problem) for problem in refused.value.problems]


def lines(count: int, first: int = 0, rest: str = "public: true") -> str:
    return "routes:\n" + "".join(f'- {{match: "GET /{number}", {rest}}}\n' for number in range(first, first + count))


MANY_NAMES = ", ".join(f"S{number}" for number in range(20))


@pytest.mark.parametrize(
    ("settings", "files", "says"),
    [
        (text_of(scopes=[f"S{number}" for number in range(501)]), {}, "scopes: has 501 names: 500 are compared"),
        (None, {"routes_yaml": lines(1_001)}, "routes.yaml:1: routes: this makes 1,001 routes: 1,000 are compared"),
        (
            text_of(routes=["routes.yaml", "more.yaml"]),
            {"routes_yaml": lines(600), "more_yaml": lines(401, 600)},
            "more.yaml:1: routes: this makes 1,001 routes: 1,000 are compared",
        ),
        (None, {"routes_yaml": lines(500, rest=f"any_of: [{MANY_NAMES}]")}, "routes.yaml:1: this makes 11,502 keys and values"),
        (
            None,
            {"routes_yaml": "routes:\n" + "- {a: 1" + ", a: 1" * 10_000 + "}"},
            "routes.yaml:1: this makes 10,004 keys and values",
        ),
    ],
)
def test_more_than_is_compared_is_said_before_anything_is_compared(
    counting: Configuration, settings: str | None, files: dict[str, str], says: str
) -> None:
    (message,) = problems(counting, settings, **files)
    assert says in message
    assert message.endswith("at most; extauthz diff compares more")


def test_as_much_as_counts_is_compared(counting: Configuration, folder: Path) -> None:
    assert len(read_pasted(counting, None, {"routes.yaml": lines(1_000)}).route_places) == 1_000
    names = [f"S{number}" for number in range(501)]
    for name, text in (("extauthz.yaml", text_of(scopes=names)), ("routes.yaml", lines(1_001))):
        (folder / name).write_text(text)
    larger = load(folder / "extauthz.yaml")
    assert len(read_pasted(larger, text_of(scopes=names), {"routes.yaml": lines(1_001)}).route_places) == 1_001
    assert len(problems(larger, text_of(scopes=[*names, "MORE"]), routes_yaml=lines(1_002))) == 2


def test_what_is_not_pasted_is_as_it_counts(counting: Configuration) -> None:
    assert route_file_names(counting) == ("routes.yaml",)
    same = read_pasted(counting, None, {})
    assert same.settings == counting.settings
    assert same.route_places == {"POST /search": "routes.yaml:1"}


def test_a_pasted_route_file_counts_in_place_of_the_one_with_its_name(counting: Configuration, folder: Path) -> None:
    pasted = read_pasted(counting, None, {"routes.yaml": 'routes: [{match: "GET /other", scope: CHAT}]'})
    assert list(pasted.route_places) == ["GET /other"]
    several = read_pasted(
        counting, text_of(routes=["routes.yaml", "more.yaml"]), {"more.yaml": 'routes: [{match: "GET /b", scope: CHAT}]'}
    )
    assert several.route_places == {"POST /search": "routes.yaml:1", "GET /b": "more.yaml:1"}
    assert sorted(file.name for file in folder.iterdir()) == ["extauthz.yaml", "routes.yaml"], "nothing is written"


def test_problems_are_those_of_the_pasted_texts(counting: Configuration) -> None:
    assert problems(counting, "version: 1\nrutes: []\n")[0].startswith("extauthz.yaml:")
    assert "SAERCH" in problems(counting, None, routes_yaml='routes: [{match: "GET /a", scope: SAERCH}]')[0]
    assert problems(counting, "[") != []
    assert problems(counting, "") != []


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../extauthz.yaml", "x/../routes.yaml", "./nothing.yaml", "link.yaml", "data/pepper", "a\0b", "~/x", "."],
)
def test_no_file_of_this_machine_is_looked_at(counting: Configuration, folder: Path, name: str, looked_at: list[str]) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "pepper").write_text(SECRET)
    (folder / "link.yaml").symlink_to(folder / "data" / "pepper")
    looked_at.clear()
    (message,) = problems(counting, text_of(routes=["routes.yaml", name]))
    assert "was not pasted, and is no route file of the configuration that counts" in message
    assert looked_at == []


PLACES: dict[str, Any] = {
    "server": {
        "listen": "unix:///run/extauthz/check.sock",
        "tls": {"certificate": "{secret}", "key": "{secret}", "client_ca": "{secret}"},
        "ops": "127.0.0.1:9090",
        "ops_tls": {"certificate": "{secret}", "key": "{secret}"},
    },
    "oauth": {
        "provider": "okta",
        "issuer": "https://acme.okta.com",
        "client_ids": ["a"],
        "client_secret": {"file": "{secret}"},
        "ca_file": "{secret}",
    },
    "tokens": {
        "store": "postgresql://extauthz@db/extauthz",
        "store_password": {"file": "{secret}"},
        "peppers": [{"id": "p1", "file": "{secret}"}, {"id": "p0", "env": "A_SECRET"}],
    },
    "internal_token": {"issuer": "https://authz.acme.com", "audience": "api", "keys": [{"id": "k1", "file": "{secret}"}]},
    "decision_log": {"to": {"file": "{secret}"}},
    "console": {
        "public_url": "https://console.acme.com",
        "sidecars": ["unix://{secret}"],
        "tls": {"certificate": "{secret}", "key": "{secret}"},
        "sidecar_tls": {"ca_file": "{secret}", "certificate": "{secret}", "key": "{secret}"},
        "oidc": {"issuer": "https://acme.okta.com", "client_id": "a", "client_secret": {"file": "{secret}"}, "ca_file": "{secret}"},
    },
    "tracing": {"endpoint": "https://collector.acme.com/v1/traces", "headers": {"x-key": {"file": "{secret}"}}},
}
"""Every place at which a configuration can name a file or a variable."""


def placed(value: Any, secret: Path) -> Any:
    match value:
        case dict():
            return {name: placed(each, secret) for name, each in value.items()}
        case list():
            return [placed(each, secret) for each in value]
        case str():
            return value.replace("{secret}", str(secret))
    return value


@pytest.mark.parametrize("section", PLACES)
def test_no_secret_that_a_pasted_configuration_names_is_read(
    counting: Configuration, folder: Path, section: str, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", SECRET)
    (folder / "secret").write_text(SECRET)
    looked_at.clear()
    pasted = read_pasted(counting, text_of(**{section: placed(PLACES[section], folder / "secret")}), {})
    pasted.document()
    # Modules may be imported by it.
    assert [path for path in looked_at if path.startswith(str(folder))] == []
    assert SECRET.encode() not in b"".join(pasted.files.contents.values())
    assert [reads(reader) for reader in (pasted.read_secrets, pasted.console_client_secret)] == [False, False]


def reads(reader: Callable[[Mapping[str, str]], object]) -> bool:
    """Tell whether a reader of secrets finds the one that stands in the file."""
    try:
        return SECRET in repr(reader({}))
    except ConfigurationError:
        return False
