"""The doctor looks at a real Envoy."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.addresses import Address
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.doctor import envoy_admin, envoy_dump
from extauthz.doctor.envoy_dump import Dump
from extauthz.doctor.findings import Finding, Level
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Edge
from extauthz.envoy_config.reading import domains_of, sidecar_of
from tests.support.envoy import START_TIMEOUT, running_envoy, running_sidecar
from tests.support.envoy_faults import FAULTS, OK, PROBLEM, WARNING, Parts, Told, configured
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import eventually

# With `hosts` in a route file, and no other file.
HOST_FAULTS: dict[str, tuple[tuple[str, ...], Told]] = {
    "the same": (("api.example.com", "localhost", "127.0.0.1"), []),
    "one more host": (("api.example.com", "localhost", "127.0.0.1", "b.example.com"), [("envoy.domains", WARNING)]),
    "one more domain": (("api.example.com", "localhost"), [("envoy.domains", WARNING)]),
}


@dataclass
class Installed:
    """A sidecar that runs, its configuration, and what an Envoy with a listener for each fault tells."""

    file: Path
    admin: Path
    dump: Dump

    @property
    def configuration(self) -> Configuration:
        return load(self.file)

    @property
    def listen(self) -> str:
        return str(self.configuration.settings.server.listen)

    def told(self, fault: str, configuration: Configuration | None = None) -> list[Finding]:
        """Judge the listener of one fault."""
        # That nobody is asked is worth a warning where others are.
        kept = (fault, "nothing") if fault == "asks-nobody" else (fault,)
        managers = (each for each in self.dump.managers if each.where in [f"listener {name}" for name in kept])
        alone = replace(self.dump, managers=tuple(managers))
        found = list(envoy_admin.judge(alone, configuration or self.configuration))
        return [each for each in found if each.name != "envoy.version" and each.where in ("", f"listener {fault}")]


def with_faults(printed: str, admin: Path) -> str:
    """Return a bootstrap with a listener and a cluster for each fault."""
    data = yaml.safe_load(printed)
    (listener,), (cluster, upstream) = data["static_resources"]["listeners"], data["static_resources"]["clusters"]
    listeners, clusters = [], [upstream]
    for name, (fault, _) in FAULTS.items():
        own, other = copy.deepcopy(listener), copy.deepcopy(cluster)
        own["name"], own["address"] = name, {"pipe": {"path": f"@extauthz-{admin.parent.name}-{name}"}}
        parts = Parts(own["filter_chains"][0]["filters"][0]["typed_config"], other)
        parts.manager["stat_prefix"] = name
        other["name"] = other["load_assignment"]["cluster_name"] = f"extauthz-{name}"
        parts.check["grpc_service"]["envoy_grpc"]["cluster_name"] = other["name"]
        # On a machine that is busy no answer is late.
        other["health_checks"][0]["timeout"] = "30s"
        fault(parts)
        listeners.append(own)
        clusters.append(other)
    data["static_resources"] = {"listeners": listeners, "clusters": clusters}
    return yaml.safe_dump(data)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("d")
    ops, listen, admin = free_port(), free_port(), folder / "admin.sock"
    file = configured(folder, f"127.0.0.1:{listen}", ops=ops)
    loaded = load(file)
    printed = bootstrap.text(sidecar_of(loaded), Edge(admin=Address(path=str(admin)), domains=domains_of(loaded)))
    with running_sidecar(file, ops), running_envoy(folder, with_faults(printed, admin), admin):
        documents = asyncio.run(envoy_admin.documents(f"unix://{admin}"))
        yield Installed(file, admin, envoy_dump.read_dump(*documents))


@pytest.mark.envoy
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_else(installed: Installed, fault: str) -> None:
    found = installed.told(fault)
    expected = FAULTS[fault][1]
    assert sorted((each.name, each.level) for each in found) == sorted(expected or [("envoy.ext_authz", OK)])
    assert all(bool(each.advice) == (each.level is not OK) for each in found)


@pytest.mark.envoy
@pytest.mark.parametrize("fault", HOST_FAULTS)
def test_domains_are_compared_with_hosts(installed: Installed, fault: str, tmp_path: Path) -> None:
    hosts, expected = HOST_FAULTS[fault]
    loaded = load(configured(tmp_path, installed.listen, hosts=hosts))
    found = [(each.name, each.level) for each in installed.told("nothing", loaded)]
    # This Envoy was printed for a configuration without `hosts`: it does not remove what names another host.
    names = ["envoy.decoder_header_mutation_rules", "envoy.header_mutation", "envoy.header_mutation"] if hosts else []
    assert found == ([*((name, WARNING) for name in names), *expected] or [("envoy.ext_authz", OK)])
    assert ("envoy.domains", PROBLEM) in [(each.name, each.level) for each in installed.told("any-host", loaded)]


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("listen", "changes", "expected"),
    [
        ("127.0.0.1:PORT", {"max_in_flight": 2000}, [("envoy.circuit_breakers", WARNING)]),
        ("127.0.0.1:PORT", {"check_timeout": "200ms"}, [("envoy.timeout", PROBLEM)]),
        ("127.0.0.1:PORT", {"tls": {"certificate": "a", "key": "b"}}, [("envoy.tls", PROBLEM)]),
        ("127.0.0.1:9", {}, [("envoy.addresses", PROBLEM)]),
        ("unix:///tmp/extauthz/check.sock", {}, [("envoy.addresses", PROBLEM)]),
        ("0.0.0.0:9", {}, [("envoy.addresses", WARNING)]),
        ("0.0.0.0:PORT", {}, [("envoy.ext_authz", OK)]),
        ("localhost:PORT", {}, [("envoy.ext_authz", OK)]),
    ],
)
def test_another_configuration_of_the_sidecar_is_noticed(
    installed: Installed, listen: str, changes: dict[str, Any], expected: Told, tmp_path: Path
) -> None:
    where = listen.replace("PORT", installed.listen.rpartition(":")[2])
    loaded = load(configured(tmp_path, where, **changes))
    assert [(each.name, each.level) for each in installed.told("nothing", loaded)] == expected


@pytest.mark.envoy
def test_an_envoy_that_rejects_what_a_route_takes_is_noticed(installed: Installed, tmp_path: Path) -> None:
    file = configured(tmp_path, installed.listen)
    (tmp_path / "routes.yaml").write_text('routes: [{match: "GET /a/{id}", public: true, encoded_slashes: true}]')
    (found,) = installed.told("nothing", load(file))
    assert (found.name, found.level) == ("envoy.path", WARNING)
    assert found.advice == "write path_with_escaped_slashes_action: KEEP_UNCHANGED"


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("fault", "setting", "expected"),
    [
        ("nothing", "x-envoy-external-address", OK),
        ("no-edge", "x-envoy-external-address", PROBLEM),
        ("no-append", "x-envoy-external-address", WARNING),
        ("one-proxy", "x-envoy-external-address", OK),
        ("one-proxy", {"trusted_hops": 1}, OK),
        ("one-proxy", {"trusted_hops": 2}, WARNING),
        ("nothing", {"trusted_hops": 1}, WARNING),
    ],
)
def test_the_address_of_the_client_is_where_it_is_read(
    installed: Installed, fault: str, setting: Any, expected: Level, tmp_path: Path
) -> None:
    file = configured(tmp_path, installed.listen)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"envoy": {"client_address": setting}}))
    found = [(each.name, each.level) for each in installed.told(fault, load(file))]
    assert found == [("envoy.ext_authz", OK) if expected is OK else ("envoy.client_address", expected)]


@pytest.mark.envoy
@pytest.mark.parametrize("fault", ["twice", "redirects"])
def test_a_second_check_that_finds_the_credential_is_none(installed: Installed, fault: str, tmp_path: Path) -> None:
    file = configured(tmp_path, installed.listen)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"identity": {"keep": ["authorization"]}}))
    assert "envoy.checked_twice" not in [found.name for found in installed.told(fault, load(file))]


@pytest.mark.envoy
def test_the_shipped_configuration_has_no_findings_in_a_running_envoy(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s")
    ops, listen, admin = free_port(), free_port(), folder / "admin.sock"
    file = configured(folder, f"127.0.0.1:{listen}", ops=ops)
    shipped = (ROOT / "envoy" / "envoy.yaml").read_text()
    for old, new in (("port_value: 9001", f"port_value: {listen}"), ("port_value: 10000", f"port_value: {free_port()}")):
        assert shipped.count(old) == 1
        shipped = shipped.replace(old, new)
    shipped = shipped.replace("/tmp/extauthz-envoy-admin.sock", str(admin))  # noqa: S108
    with running_sidecar(file, ops), running_envoy(folder, shipped, admin):
        flags = ["doctor", "--config", str(file), "--envoy-admin", f"unix://{admin}", "--json"]
        told = ""

        def is_healthy() -> bool:
            """Ask: on a machine that is busy a health check may fail once."""
            nonlocal told
            told = CliRunner().invoke(main, flags).stdout
            return "envoy.health" not in told

        eventually(is_healthy, seconds=START_TIMEOUT, pause=0.2, what=lambda: told)
    found = {(each["name"], each["level"], each["where"]) for each in json.loads(told)["findings"]}
    of_envoy = {each for each in found if each[0].startswith("envoy.")}
    assert of_envoy == {("envoy.version", "ok", ""), ("envoy.ext_authz", "ok", "listener http")}
    assert ("server.ops", "ok", "") in found


@pytest.mark.envoy
def test_the_command_tells_what_is_wrong_with_a_running_envoy(installed: Installed) -> None:
    flags = ["doctor", "--config", str(installed.file), "--envoy-admin", f"unix://{installed.admin}"]
    result = CliRunner().invoke(main, flags)
    assert result.exit_code == 1
    assert "problem  envoy.failure_mode_allow listener failure-mode: failure_mode_allow is true" in result.stdout
    assert "→ write failure_mode_allow: false" in result.stdout
