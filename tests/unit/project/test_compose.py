"""docker-compose.yml as data, and what it starts as real processes: no container engine is at hand where the tests run."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from extauthz.config.loader import load
from extauthz.demo.faults import IssuerRequest
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.part import TokenEndpoint
from tests.support.deployment import COMPOSE, changed
from tests.support.project import ROOT

FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OWN = sorted(name for name, service in SERVICES.items() if "build" in service)


def sources(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return source and target of what a service mounts."""
    return [(source, target) for source, target, *_ in (volume.split(":") for volume in service.get("volumes", ()))]


def test_the_compose_file_keeps_its_published_schema() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)

    assert [error.message for error in validator.iter_errors(FILE)] == []
    assert list(validator.iter_errors(FILE | {"services": {"envoy": {"imagine": "x"}}})), "the schema finds nothing"


def test_all_parts_are_there() -> None:
    """Those that the documents promise."""
    promised = {"envoy", "sidecar", "console", "database", "upstream", "issuer", "prometheus", "grafana", "migrate", "secrets"}
    assert promised <= set(SERVICES)
    assert set(OWN) == {"sidecar", "console", "upstream", "issuer", "migrate", "secrets", "admin"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_names_only_what_exists(name: str) -> None:
    service = SERVICES[name]
    for source, _ in sources(service):
        assert (ROOT / source).exists() if source.startswith("./") else source in FILE["volumes"], source
    assert set(service.get("networks", ())) <= set(FILE["networks"])
    for other, how in service.get("depends_on", {}).items():
        condition = how["condition"]
        assert other in SERVICES
        assert ("healthcheck" in SERVICES[other]) == (condition == "service_healthy")
        assert ("restart" not in SERVICES[other]) == (condition == "service_completed_successfully"), other


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert set(service.get("cap_add", ())) == (
        {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"} if name == "database" else set()
    )
    assert service["mem_limit"]
    assert re.fullmatch(r"extauthz:local|[a-z/]+:[a-z-]*v?[0-9]+\.[0-9]+[a-z0-9.-]*", service["image"]), "a version that is pinned"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))  # why: most publish nothing


def test_no_two_services_publish_one_port() -> None:
    published = [port.rsplit(":", 1)[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == len(set(published)) == 5


def test_no_secret_stands_in_the_files() -> None:
    """Each is a file in a volume that `secrets` fills; configurations of ours could not hold one anyway."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if not key.endswith("_FILE"):
                assert not re.search("password|secret|token|key", key, re.IGNORECASE), f"{key}={value}"
    filled = {source for source, _ in sources(SERVICES["secrets"]) if not source.startswith("./")}
    needed = {
        source
        for name in ("sidecar", "console", "migrate", "admin", "database")
        for source, target in sources(SERVICES[name])
        if target in ("/run/extauthz", "/var/lib/extauthz") and source not in ("database", "issuer")
    }
    assert filled == needed == {"sidecar-secrets", "database-secrets", "console-secrets"}


def test_a_new_volume_of_ours_gets_its_owner_from_the_image() -> None:
    """A named volume takes over owner and mode of the folder it is laid on, if the image has that folder."""
    made = re.search(r"install -d -o 65532 -g 65532 -m 0755 ([^\n]+)", (ROOT / "Dockerfile").read_text())
    assert made is not None
    for name in OWN:
        for source, target in sources(SERVICES[name]):
            if not source.startswith("./"):
                assert target in made[1].split(), f"{name}: {target}"


def test_the_database_is_reached_by_who_needs_it() -> None:
    on_its_network = {name for name, service in SERVICES.items() if "store" in service.get("networks", ())}
    assert on_its_network == {"database", "sidecar", "console", "migrate", "admin"}
    assert FILE["networks"]["store"] == {"internal": True}


def test_a_stop_leaves_time_to_drain() -> None:
    settings = yaml.safe_load((COMPOSE / "extauthz.yaml").read_text())
    seconds = {key: int(str(value).removesuffix("s")) for key, value in settings["server"].items() if key == "drain"}
    assert int(SERVICES["sidecar"]["stop_grace_period"].removesuffix("s")) > seconds["drain"]


# What docker-compose.yml changes in the shipped bootstrap, and nothing else.
COMPOSE_CHANGES = (
    ("        address: 127.0.0.1\n        port_value: 10000", "        address: 0.0.0.0\n        port_value: 10000"),
    ("timeout: 0.2s", "timeout: 1s"),
    ("  - name: extauthz\n    type: STATIC\n", "  - name: extauthz\n    type: STRICT_DNS\n"),
    (
        "                address: 127.0.0.1\n                port_value: 9001",
        "                address: sidecar\n                port_value: 9001",
    ),
    ("  - name: upstream\n    type: STATIC\n", "  - name: upstream\n    type: STRICT_DNS\n"),
    (
        "                address: 127.0.0.1\n                port_value: 8080",
        "                address: upstream\n                port_value: 8080",
    ),
)


def test_its_envoy_is_the_shipped_one() -> None:
    """Run `python -m tests.unit.project.test_compose` to write it anew."""
    assert (COMPOSE / "envoy.yaml").read_text() == changed((ROOT / "envoy" / "envoy.yaml").read_text(), COMPOSE_CHANGES)


VERIFIED = "sslmode=verify-full&sslrootcert=/var/lib/extauthz/database-ca.crt&require_auth=scram-sha-256"


def test_its_configurations_differ_only_in_the_account() -> None:
    """Whoever makes tokens must know the rules of who serves them."""
    serve, *others = (yaml.safe_load((COMPOSE / f"{name}.yaml").read_text()) for name in ("extauthz", "admin", "owner", "console"))
    for other in others:
        assert {key: other[key] for key in ("act_as", "scopes", "routes")} == {
            key: serve[key] for key in ("act_as", "scopes", "routes")
        }
        assert other["tokens"]["peppers"] == serve["tokens"]["peppers"]
    stores = [each["tokens"]["store"] for each in (serve, *others)]
    assert [re.sub("//.*@", "//", store) for store in stores] == [f"postgresql://database:5432/extauthz?{VERIFIED}"] * 4
    assert len(set(stores)) == 4, "an account for each"


def test_the_console_is_an_admin_and_never_the_owner() -> None:
    """Its account may do what admins may; passwords of the owner are in a volume that it does not have."""
    settings = load(COMPOSE / "console.yaml").settings
    assert settings.tokens is not None
    assert settings.tokens.store.startswith("postgresql://tokens_console@")
    accounts = (COMPOSE / "database-accounts.sh").read_text()
    assert re.findall(r"^CREATE ROLE tokens_console .*", accounts, re.MULTILINE) == [
        "CREATE ROLE tokens_console LOGIN PASSWORD :'console_password' IN ROLE extauthz_admin CONNECTION LIMIT 20;"
    ]
    assert sources(SERVICES["console"])[2:] == [("sidecar-secrets", "/var/lib/extauthz"), ("console-secrets", "/run/extauthz")]
    assert {volume.rpartition(":")[2] for volume in SERVICES["console"]["volumes"]} == {"ro"}
    who_has_the_owners = {name for name in SERVICES if "database-secrets" in dict(sources(SERVICES[name]))}
    assert who_has_the_owners == {"secrets", "migrate", "admin", "database"}


def test_the_console_is_where_the_files_say() -> None:
    settings, service = load(COMPOSE / "console.yaml").settings, SERVICES["console"]
    section = settings.console
    assert section is not None
    assert section.public_url == "https://localhost:9003"
    assert service["ports"] == [f"127.0.0.1:9003:{section.listen.port}"]
    assert f"{section.public_url}/readyz" in " ".join(service["healthcheck"]["test"])
    assert service["restart"] == "unless-stopped"
    ops = load(COMPOSE / "extauthz.yaml").settings.server.ops
    assert ops is not None
    assert section.ops is not None
    jobs = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {"extauthz": [f"sidecar:{ops.port}"], "extauthz-console": [f"console:{section.ops.port}"]}
    assert section.sidecars == [f"http://sidecar:{ops.port}"]
    assert set(service["networks"]) & set(SERVICES["sidecar"]["networks"]) >= {"monitoring"}
    assert settings.roles.admins
    assert settings.roles.super_admins
    assert section.has_local_accounts, "a browser and a container know the demo's issuer by different names"


# --- what it starts, on loopback


@pytest.mark.parametrize("body", [b"", b"[]", b'{"user": 1}', b'{"user": "ana@acme.com", "provider": []}', b"{}"])
def test_a_token_that_cannot_be_given(body: bytes) -> None:
    """The desk of the demo issuer says what it wants."""
    reply = TokenEndpoint(DemoIssuer("https://localhost:1"))._give(IssuerRequest("POST", "/demo/token", "", {}, {}, body))
    assert reply.status == 400
    assert "providers: okta, okta-org" in reply.document["error"]


if __name__ == "__main__":
    (COMPOSE / "envoy.yaml").write_text(changed((ROOT / "envoy" / "envoy.yaml").read_text(), COMPOSE_CHANGES))
