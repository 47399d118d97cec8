"""Certificates that ended, or end soon, are told: by `config check`, at the start and when the configuration is read again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from extauthz.config.loader import load
from extauthz.demo.wiring import write_certificates
from extauthz.serve.certificate_warnings import certificate_warnings
from extauthz.serve.reload import Reloader
from tests.support.command_line import SETTINGS, configured, run

DAY = 86_400.0
DAYS = 60
LISTENER = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
SECTIONS: dict[str, dict[str, Any]] = {
    "server.tls.certificate": {"server": {"listen": "127.0.0.1:9001", "tls": {**LISTENER, "client_ca": "good.crt"}}},
    "server.tls.client_ca": {"server": {"listen": "127.0.0.1:9001", "tls": {**LISTENER, "certificate": "good.crt"}}},
    "server.ops_tls.certificate": {"server": {"listen": "127.0.0.1:9001", "ops_tls": {"certificate": "server.crt", "key": "k"}}},
    "server.ops_tls.client_ca": {"server": {"listen": "127.0.0.1:9001", "ops_tls": {**LISTENER, "certificate": "good.crt"}}},
    "console.tls.certificate": {"console": {"tls": {"certificate": "server.crt", "key": "k"}, "public_url": "https://c.acme.com"}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with certificates of sixty days and one, good.crt, of a thousand; and when the short ones end."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, "sidecar.acme.com", days=1000)
    (folder / "server.crt").rename(folder / "good.crt")
    write_certificates(folder, "sidecar.acme.com", days=DAYS)
    ends = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes()).not_valid_after_utc
    return folder, ends.timestamp()


@pytest.fixture
def place(made: tuple[Path, float], tmp_path: Path) -> Callable[..., tuple[Path, float]]:
    """Return a function that writes a configuration beside copies of the certificates."""

    def write(**sections: Any) -> tuple[Path, float]:
        for file in made[0].glob("*.crt"):
            shutil.copy(file, tmp_path)
        return configured(tmp_path, **sections), made[1]

    return write


@pytest.mark.parametrize("key", SECTIONS)
@pytest.mark.parametrize(
    ("days", "says"),
    [(-20, None), (-13, "ends on "), (1, "ended on ")],
    ids=["good", "soon", "over"],
)
def test_each_certificate_is_told_of_with_its_line(
    place: Callable[..., tuple[Path, float]], key: str, days: int, says: str | None
) -> None:
    folder, ends = place(**SECTIONS[key])
    found = certificate_warnings(load(folder / "extauthz.yaml"), ends + days * DAY)
    assert [problem.path for problem in found] == ([] if says is None else [key])
    assert all(says and says in problem.message and str(folder) in problem.message for problem in found)


def test_one_that_begins_later_is_told_of(place: Callable[..., tuple[Path, float]]) -> None:
    folder, ends = place(**SECTIONS["server.ops_tls.certificate"])
    (found,) = certificate_warnings(load(folder / "extauthz.yaml"), ends - (DAYS + 2) * DAY)
    assert " begins on " in found.message


def test_of_several_authorities_one_has_to_be_good(place: Callable[..., tuple[Path, float]]) -> None:
    folder, ends = place(server={"listen": "127.0.0.1:9001", "tls": {**LISTENER, "certificate": "good.crt"}})
    bundle = folder / "ca.crt"
    bundle.write_bytes(bundle.read_bytes() + (folder / "good.crt").read_bytes())
    assert certificate_warnings(load(folder / "extauthz.yaml"), ends + DAY) == []


@pytest.mark.parametrize(("content", "says"), [(b"", "holds no certificates"), (b"x", "holds no certificates"), (None, "")])
def test_a_file_that_is_none_is_told_and_one_that_is_not_here_is_not(
    place: Callable[..., tuple[Path, float]], content: bytes | None, says: str
) -> None:
    folder, ends = place(server={"listen": "127.0.0.1:9001", "tls": {"certificate": "x.crt", "key": "k"}})
    if content is not None:
        (folder / "x.crt").write_bytes(content)
    found = certificate_warnings(load(folder / "extauthz.yaml"), ends)
    assert [says in problem.message for problem in found] == ([True] if says else [])


def test_a_look_that_fails_keeps_nobody_from_serving(place: Callable[..., tuple[Path, float]]) -> None:
    folder, ends = place(server={"listen": "127.0.0.1:9001", "tls": {"certificate": "x" * 300, "key": "k"}})
    (found,) = certificate_warnings(load(folder / "extauthz.yaml"), ends)
    assert "cannot be looked at: OSError(36, 'File name too long')" in found.message


def test_config_check_tells(place: Callable[..., tuple[Path, float]]) -> None:
    folder, _ = place(scopes=["SEARCH"], **SECTIONS["server.tls.certificate"])
    assert json.loads(run(folder, "config", "check", "--json").stdout)["warnings"] == []
    write_certificates(folder, "sidecar.acme.com", days=10)
    result = run(folder, "config", "check")
    assert result.exit_code == 0
    assert "server.tls.certificate" in result.stdout
    assert result.stdout.endswith("extauthz.yaml: 0 problems, 1 warning\n")


async def test_what_is_read_again_tells(place: Callable[..., tuple[Path, float]], caplog: pytest.LogCaptureFixture) -> None:
    folder, ends = place(**SECTIONS["server.tls.certificate"])
    (folder / "data").mkdir()
    (folder / "data" / "pepper").write_text("f" * 64)

    async def take(_: object) -> None:
        pass

    reloader = Reloader(load(folder / "extauthz.yaml"), take, environment={}, now=lambda: ends - DAY)
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | SECTIONS["server.tls.certificate"] | {"realm": "other"}))
    await reloader.reload()
    assert reloader.problem is None
    assert "configuration: " in caplog.text
    assert "server.tls.certificate: " in caplog.text
    assert "sidecar.acme.com, 127.0.0.1) ends on " in caplog.text


def test_the_start_tells(
    place: Callable[..., tuple[Path, float]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ends = place(**SECTIONS["server.tls.certificate"])
    monkeypatch.setattr(time, "time", lambda: ends - DAY)
    monkeypatch.setattr("extauthz.serve.main.run", lambda *_, **__: None)
    monkeypatch.setattr("extauthz.adapters.process_log.configure", lambda: None)
    assert run(folder, "serve").exit_code == 0
    assert "server.tls.certificate: " in caplog.text
