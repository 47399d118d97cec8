"""Manifests and Helm chart: built by kustomize and Helm themselves, and every object against the schemas of Kubernetes."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from extauthz.config.loader import load
from tests.support.deployment import ALERTS, changed
from tests.support.kubernetes import CHART, EVERYTHING, EXAMPLE, KUBERNETES, MANIFESTS, Manifest, built, charts, named, rendered
from tests.support.project import ROOT

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CONSOLE = EXAMPLE["console"]

VERSIONS = ("1.30", "1.34", "1.37")
OF_AN_OPERATOR = {"ServiceMonitor", "PrometheusRule"}


def pods() -> dict[str, Manifest]:
    """Return the pod of everything that runs some."""
    specs = {
        where: found["spec"].get("jobTemplate", found)["spec"]
        for where, found in MANIFESTS.items()
        if found["kind"] in ("Deployment", "Job", "CronJob")
    }
    return {where: spec["template"]["spec"] for where, spec in specs.items()}


def containers() -> dict[str, tuple[Manifest, Manifest]]:
    """Return each container with its pod."""
    return {
        f"{where} {container['name']}": (pod, container)
        for where, pod in pods().items()
        for container in (*pod.get("initContainers", ()), *pod["containers"])
    }


# --- every manifest


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("where", [where for where, found in MANIFESTS.items() if found["kind"] not in OF_AN_OPERATOR])
def test_a_manifest_keeps_the_schema(where: str, version: str) -> None:
    assert kubernetes_validate.validate(deepcopy(MANIFESTS[where]), version, strict=True) == version


def test_a_wrong_manifest_is_found() -> None:
    wrong = deepcopy(named("overlays/standalone", "Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["image_pull"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("where", containers())
def test_a_container_is_hardened(where: str) -> None:
    pod, container = containers()[where]
    context = pod["securityContext"] | container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == 65532
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["limits"].keys() == {"memory"}
    assert {"cpu", "memory"} == container["resources"]["requests"].keys()
    assert re.search(r":[^:/]*[0-9]+\.[0-9]+", container["image"]), "a version"
    assert not [entry for entry in container.get("env", ()) if "value" in entry]


@pytest.mark.parametrize("where", containers())
def test_a_container_mounts_what_the_pod_has(where: str) -> None:
    pod, container = containers()[where]
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    for volume in pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", ()):
            if "configMap" in source:
                # Console and admin read the routes of the sidecars, which an overlay makes.
                place = "overlays/" if source["configMap"]["name"] == "extauthz" else where.split(" ")[0]
                assert any(
                    source["configMap"]["name"] == found["metadata"]["name"]
                    for other, found in MANIFESTS.items()
                    if other.startswith(place) and " ConfigMap " in other
                )


@pytest.mark.parametrize("where", MANIFESTS)
def test_no_secret_is_made(where: str) -> None:
    assert MANIFESTS[where]["kind"] != "Secret"


@pytest.mark.parametrize("where", ["overlays/sidecar", "overlays/standalone", "helm", "console", "helm console"])
def test_ports_and_selectors_meet(where: str) -> None:
    deployment, service = named(where, "Deployment"), named(where, "Service")
    template = deployment["spec"]["template"]
    labels, selector = template["metadata"]["labels"], deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    if not where.endswith("console"):
        assert named(where, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    running = [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]
    ports = {port["name"]: port["containerPort"] for container in running for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for container in running:
        own = {port["name"] for port in container["ports"]}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(name, {})
            assert {action["port"] for key, action in probe.items() if key in ("httpGet", "tcpSocket")} <= own


APPLICATION = {"overlays/sidecar": "http", "overlays/standalone": "grpc", "helm": "grpc"}


@pytest.mark.parametrize("where", APPLICATION)
def test_a_network_policy_lets_only_prometheus_in_to_the_probes_port(where: str) -> None:
    """The kubelet comes from the node of the pod, which Kubernetes always lets in."""
    template, policy = named(where, "Deployment")["spec"]["template"], named(where, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "Ingress" in policy["policyTypes"]
    application, ops = policy["ingress"]
    assert [port["port"] for port in application["ports"]] == [APPLICATION[where]]
    assert [port["port"] for port in ops["ports"]] == ["ops"]
    assert ops["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    running = [container for _, container in containers_of(template["spec"])]
    open_ports = {port["name"] for container in running for port in container["ports"]}
    assert open_ports == {APPLICATION[where], "ops"}, "nothing that the policy forgets"
    (sidecar,) = (container for container in running if container["name"] == "extauthz")
    assert {sidecar[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {"ops"}
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_sidecar_leaves_its_envoy_open() -> None:
    """One policy covers all containers of the pod: whom Envoy answers and asks is not ours to say."""
    policy = named("overlays/sidecar", "NetworkPolicy")["spec"]
    assert "from" not in policy["ingress"][0]
    assert policy["policyTypes"] == ["Ingress"]
    assert "egress" not in policy


@pytest.mark.parametrize("places", [("overlays/standalone", "helm"), ("console", "helm console")])
def test_manifests_and_chart_have_the_same_policy(places: tuple[str, str]) -> None:
    ours, theirs = (dict(named(where, "NetworkPolicy")["spec"]) for where in places)
    assert ours.pop("podSelector") != theirs.pop("podSelector")
    assert ours == theirs
    assert all(rule["from"] for rule in ours["ingress"])


def test_the_ports_of_another_envoy_are_a_patch(tmp_path: Path) -> None:
    """The overlay that the documents show, on top of ours."""
    shown = re.search(r"```yaml\n(resources: .*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    assert shown is not None
    base = os.path.relpath(KUBERNETES / "overlays" / "sidecar", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(changed(shown[1], (("extauthz/deploy/kubernetes/overlays/sidecar", base),)))
    (policy,) = (manifest for manifest in built(str(tmp_path)) if manifest["kind"] == "NetworkPolicy")
    kubernetes_validate.validate(deepcopy(policy), VERSIONS[-1], strict=True)
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == ["http", "https"]
    assert policy["spec"]["ingress"][1:] == named("overlays/sidecar", "NetworkPolicy")["spec"]["ingress"][1:]


# --- the console

CONSOLES = ("console", "helm console")


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_is_no_sidecar(where: str) -> None:
    """No Service, policy or budget of the sidecars takes its pod for one of theirs, and the other way round."""
    deployment = named(where, "Deployment")
    labels, namespace = deployment["spec"]["template"]["metadata"]["labels"], deployment["metadata"].get("namespace")
    kinds = ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service")
    beside = {
        place: found
        for place, found in MANIFESTS.items()
        if found["kind"] in kinds and found["metadata"].get("namespace") == namespace
    }
    assert {found["kind"] for found in beside.values()} == set(kinds)
    takers = {place for place, found in beside.items() if selector_of(found).items() <= labels.items()}
    assert takers == {place for place in beside if place.startswith(f"{where.split()[0]} ") and place.endswith("-console")}


def selector_of(manifest: Manifest) -> dict[str, str]:
    """Return the labels by which an object finds pods; an empty selector would find all of them."""
    selector = manifest["spec"].get("podSelector", manifest["spec"].get("selector"))
    labels: dict[str, str] = selector.get("matchLabels", selector)
    assert labels
    return labels


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_is_one_process_with_probes(where: str) -> None:
    deployment = named(where, "Deployment")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert deployment["replicas"] == 1
    assert container["args"] == ["console", "--config", "/etc/extauthz/extauthz.yaml"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {
        "startup": {"path": "/readyz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
    }, "a store that is away ends no console"


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_has_an_account_and_secrets_of_its_own(where: str) -> None:
    sidecars = "helm" if where.startswith("helm") else "overlays/standalone"
    pods_of = {place: named(place, "Deployment")["spec"]["template"]["spec"] for place in (where, sidecars)}
    secrets = {
        place: {
            source["secret"]["name"]: [item["key"] for item in source["secret"]["items"]]
            for volume in pod["volumes"]
            for source in volume["projected"]["sources"]
            if "secret" in source
        }
        for place, pod in pods_of.items()
    }
    assert secrets[where].pop("extauthz") == ["pepper", "store-ca.crt"], "not the sidecars' password"
    assert secrets[where].keys() == {"extauthz-console"}
    assert "extauthz-console" not in secrets[sidecars]
    text = json.dumps(secrets[where])
    assert "owner" not in text


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_is_reached_by_its_ingress_alone(where: str) -> None:
    policy = named(where, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule["from"] for rule in policy["ingress"])
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert by_port["http"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    assert by_port["ops"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    (container,) = named(where, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {port["name"] for port in container["ports"]} == by_port.keys(), "nothing that the policy forgets"
    asked = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert asked == {53, 443, 5432, 9090}


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_is_behind_an_ingress_with_a_certificate(where: str, tmp_path: Path) -> None:
    ingress, service = named(where, "Ingress")["spec"], named(where, "Service")
    section = load(configuration(manifests_of(where), named(where, "Deployment"), tmp_path)).settings.console
    assert section is not None
    (rule,) = ingress["rules"]
    assert section.public_url == f"https://{rule['host']}"
    assert [entry["hosts"] for entry in ingress["tls"]] == [[rule["host"]]]
    assert ingress["tls"][0]["secretName"] == "extauthz-console-tls"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert section.trusted_proxies
    assert section.tls is None


@pytest.mark.parametrize("where", CONSOLES)
def test_the_console_knows_the_rules_of_the_sidecars(where: str, tmp_path: Path) -> None:
    """What it would allow otherwise than they do is a token that cannot be used, or a page that is not true."""
    loaded = {}
    for place in (where, "helm" if where.startswith("helm") else "overlays/standalone"):
        folder = tmp_path / place.replace("/", " ")
        folder.mkdir()
        loaded[place] = load(configuration(manifests_of(place), named(place, "Deployment"), folder))
    ours, theirs = loaded.values()
    assert ours.settings.console is not None
    assert str(ours.settings.console.listen) == "0.0.0.0:9003"
    assert ours.settings.console.prometheus is not None
    assert ours.settings.roles.super_admins
    assert str(ours.settings.console.ops) == "0.0.0.0:9091"
    assert {warning.path for warning in ours.warnings} == {"console.ops"}, "Prometheus comes from another machine"
    for key in ("oauth", "act_as", "scopes", "routes"):
        assert getattr(ours.settings, key) == getattr(theirs.settings, key)
    assert ours.settings.tokens is not None
    assert theirs.settings.tokens is not None
    assert ours.settings.tokens.peppers == theirs.settings.tokens.peppers
    assert re.sub("//.*@", "//", ours.settings.tokens.store) == re.sub("//.*@", "//", theirs.settings.tokens.store)
    assert ours.settings.tokens.store.startswith("postgresql://tokens_console@")


def manifests_of(where: str) -> tuple[Manifest, ...]:
    """Return the manifests of a place; the console of the overlays reads the routes that they bring."""
    if where.startswith("helm"):
        return charts()
    return (*built(where), *(built("overlays/standalone") if where == "console" else ()))


# --- the unit


def test_the_unit_of_the_console_is_hardened() -> None:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "deploy" / "systemd" / "extauthz-console.service").read_text())
    service = dict(parser["Service"])
    assert service["ExecStart"].startswith("/opt/extauthz/bin/extauthz console --config ")
    assert service["User"] == service["Group"] == "extauthz-console"
    assert service["ProtectSystem"] == "strict", "nothing is written"
    assert service["CapabilityBoundingSet"] == ""
    assert {service[name] for name in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome")} == {"yes"}
    assert service["Restart"] == "always"
    assert {"MemoryMax", "TasksMax"} <= service.keys()


# --- the configurations in them


def configuration(manifests: tuple[Manifest, ...], deployment: Manifest, folder: Path) -> Path:
    """Lay out the folder /etc/extauthz of a pod; secrets hold something."""
    pod = deployment["spec"]["template"]["spec"]
    maps = {found["metadata"]["name"]: found["data"] for found in manifests if found["kind"] == "ConfigMap"}
    (volume,) = (volume for volume in pod["volumes"] if "projected" in volume)
    for source in volume["projected"]["sources"]:
        wanted = source.get("configMap", {})
        for name, text in maps[wanted["name"]].items() if wanted else ():
            if "items" not in wanted or name in {item["key"] for item in wanted["items"]}:
                (folder / name).write_text(text)
        for item in source.get("secret", {}).get("items", ()):
            (folder / item["path"]).parent.mkdir(exist_ok=True)
            (folder / item["path"]).write_text("s" * 64)
    return folder / "extauthz.yaml"


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("overlays/sidecar", "Deployment"),
        ("overlays/standalone", "Deployment"),
        ("migrate", "Job"),
        ("helm", "Deployment"),
        ("helm", "Job"),
    ],
)
def test_a_configuration_loads_and_fits_its_pod(where: str, kind: str, tmp_path: Path) -> None:
    manifests = charts() if where == "helm" else built(where)
    workload = named(where, kind)
    loaded = load(configuration(manifests, workload, tmp_path))
    warned = {warning.path for warning in loaded.warnings}
    if kind == "Job":
        assert warned == {"act_as.allow"}, "it makes no token"
        return
    assert warned == {"server.ops"}, "Prometheus and the probes come from other machines"
    routes = (ROOT / "config" / "routes" / "glean-client-api.yaml").read_text()
    assert (tmp_path / "glean-client-api.yaml").read_text().strip() == routes.strip()
    server, pod = loaded.settings.server, workload["spec"]["template"]["spec"]
    assert str(server.ops) == "0.0.0.0:9090"
    assert server.drain < pod["terminationGracePeriodSeconds"]
    if where == "overlays/sidecar":
        mounts = {
            container["name"]: {mount["mountPath"] for mount in container["volumeMounts"]} for _, container in containers_of(pod)
        }
        assert str(server.listen) == "unix:///run/extauthz/check.sock"
        assert len(mounts) >= 2
        assert all("/run/extauthz" in paths for paths in mounts.values())
    else:
        assert str(server.listen) == "0.0.0.0:9001"
        assert server.tls is not None
        assert server.tls.client_ca is not None


def containers_of(pod: Manifest) -> list[tuple[str, Manifest]]:
    """Return the containers of a pod by name."""
    return [(container["name"], container) for container in (*pod.get("initContainers", ()), *pod["containers"])]


# --- the native sidecar

SIDECAR_CHANGES = (
    ("        address: 127.0.0.1\n        port_value: 10000", "        address: 0.0.0.0\n        port_value: 10000"),
    (
        "              socket_address:\n                address: 127.0.0.1\n                port_value: 9001",
        "              pipe: {path: /run/extauthz/check.sock}",
    ),
    ("  - name: upstream\n    type: STATIC\n", "  - name: upstream\n    type: STRICT_DNS\n"),
    (
        "                address: 127.0.0.1\n                port_value: 8080",
        "                address: upstream.default.svc.cluster.local\n                port_value: 8080",
    ),
)


def test_its_envoy_is_the_shipped_one() -> None:
    """`python -m tests.unit.project.test_kubernetes` writes it anew, and the copy of the routes."""
    text = (KUBERNETES / "overlays" / "sidecar" / "envoy.yaml").read_text()
    assert text == changed((ROOT / "envoy" / "envoy.yaml").read_text(), SIDECAR_CHANGES)


def test_the_sidecar_starts_before_envoy_and_ends_after_it() -> None:
    pod = named("overlays/sidecar", "Deployment")["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("extauthz", "Always")
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz", "Envoy starts when this passes"
    assert pod["securityContext"]["fsGroup"] == 65532
    (envoy,) = pod["containers"]
    assert envoy["lifecycle"]["preStop"]["sleep"]["seconds"] < pod["terminationGracePeriodSeconds"]


# --- the chart


def test_the_chart_is_sound() -> None:
    report = helm_python.lint(CHART, EXAMPLE, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"] if message["severity"] > 1] == []


def test_the_schema_is_one_and_knows_every_value() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES | EXAMPLE, SCHEMA)
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    for name, section in SCHEMA["properties"].items():
        if section.get("additionalProperties") is False:
            assert section["properties"].keys() == VALUES[name].keys(), name


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"config": {}}, "version"),
        ({"replicas": 2}, "replicas"),
        ({"replicaCount": "2"}, "replicaCount"),
        ({"image": {"repository": "x", "digest": "sha256:1"}}, "digest"),
        ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
        ({"config": EXAMPLE["config"] | {"server": {"listen": "0.0.0.0:1"}}}, "listen"),
        ({"routes": {"extauthz.yaml": {"routes": []}}}, "extauthz.yaml"),
        ({"migrate": {"store": "postgresql://owner:secret@host/db"}}, "store"),
        ({"prometheusRule": {"runbookPrefix": "wiki"}}, "runbookPrefix"),
        ({"console": {"enabled": True}}, "config"),
        ({"console": {"enabled": True, "config": {"console": {}, "tokens": CONSOLE["config"]["tokens"]}}}, "public_url"),
        ({"console": {"enabled": True, "config": {"console": CONSOLE["config"]["console"], "tokens": {}}}}, "store"),
        ({"console": {"config": {"console": {"listen": "0.0.0.0:1"}}}}, "listen"),
        ({"console": {"config": {"console": {"public_url": "http://console"}}}}, "public_url"),
        ({"console": {"config": {"tokens": {"store": "postgresql://a:secret@host/db"}}}}, "store"),
        ({"networkpolicy": {}}, "networkpolicy"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], names: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match=names):
        chart.validate_schema(EXAMPLE | values)


def test_the_chart_does_not_install_without_a_configuration() -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmError, match="config"):
        chart.render({}, name="authz", namespace="prod")


def test_what_is_switched_off_is_not_made() -> None:
    off = {name: {"enabled": False} for name in ("podDisruptionBudget", "networkPolicy")}
    made = rendered(**off, serviceAccount={"create": False}, console={"enabled": False})
    assert not [name for name, manifests in made.items() if name.startswith("console") and manifests]
    kinds = {manifest["kind"] for manifests in made.values() for manifest in manifests}
    assert kinds == {"ConfigMap", "Deployment", "Service"}


def test_values_reach_their_place() -> None:
    made = rendered(
        image={"repository": "r.acme.com/extauthz", "digest": "sha256:" + "a" * 64},
        tls={"existingSecret": ""},
        existingSecret="",
        service={"headless": False},
        fullnameOverride="checks",
        routes={"mine.yaml": {"routes": [{"match": "GET /mine", "scope": "SEARCH"}]}},
        config=EXAMPLE["config"] | {"routes": ["glean-client-api.yaml", "mine.yaml"]},
        extraEnv=[{"name": "PEPPER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        nodeSelector={"a": "b"},
        tolerations=[{"operator": "Exists"}],
        affinity={"nodeAffinity": {}},
        priorityClassName="high",
        imagePullSecrets=[{"name": "pull"}],
        podAnnotations={"a": "b"},
        topologySpreadConstraints=[{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        networkPolicy={"clients": [], "monitoring": []},
    )
    (deployment,) = made["deployment.yaml"]
    kubernetes_validate.validate(deepcopy(deployment), VERSIONS[-1], strict=True)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "r.acme.com/extauthz@sha256:" + "a" * 64
    assert [next(iter(source)) for source in pod["volumes"][0]["projected"]["sources"]] == ["configMap"]
    assert pod["topologySpreadConstraints"][0]["maxSkew"] == 2
    settings = yaml.safe_load(made["configmap.yaml"][0]["data"]["extauthz.yaml"])
    assert "tls" not in settings["server"]
    assert settings["server"]["drain"] == "10s"
    assert "mine.yaml" in made["configmap.yaml"][0]["data"]
    assert "clusterIP" not in made["service.yaml"][0]["spec"]
    assert not made["networkpolicy.yaml"][0]["spec"]["ingress"], "nobody, not everybody"


def test_the_chart_brings_alerts_and_dashboard_whole() -> None:
    made = rendered(**EVERYTHING | {"prometheusRule": {"enabled": True, "runbookPrefix": "https://git.acme.com/x/"}})
    (rules,) = made["prometheusrule.yaml"]
    found = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in found] == list(ALERTS)
    for rule in found:
        assert rule["annotations"]["runbook_url"] == f"https://git.acme.com/x/docs/runbooks/{rule['alert']}.md"
        assert rule["annotations"]["summary"] == ALERTS[rule["alert"]]["annotations"]["summary"]
    (dashboard,) = made["dashboard.yaml"]
    assert json.loads(dashboard["data"]["extauthz.json"]) == json.loads((ROOT / "deploy" / "grafana" / "extauthz.json").read_text())
    services = [*made["service.yaml"], *made["console-service.yaml"]]
    for monitor, service in zip(made["servicemonitor.yaml"], services, strict=True):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == {"ops"} <= ports


# --- the image


def test_the_dockerfile_is_sound() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_what_the_documents_say() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["extauthz"]' in text
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["65532:65532"]
    assert "libnghttp2-14" in text
    assert text.count("--require-hashes") == 3
    assert "-r requirements/console.txt" in text, "the console is in it"
    assert len(re.findall(r"^FROM \$\{PYTHON\}", text, re.MULTILINE)) == 2


def test_the_image_gets_only_what_it_copies() -> None:
    """Nothing else reaches the build: .dockerignore lists what may."""
    listed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in listed
    let_in = {line[1:] for line in listed if line.startswith("!")}
    copied = {
        part.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for part in line.split()[:-1]
    }
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)


if __name__ == "__main__":
    shipped = (ROOT / "envoy" / "envoy.yaml").read_text()
    (KUBERNETES / "overlays" / "sidecar" / "envoy.yaml").write_text(changed(shipped, SIDECAR_CHANGES))
    routes_file = ROOT / "config" / "routes" / "glean-client-api.yaml"
    (KUBERNETES / "base" / routes_file.name).write_text(routes_file.read_text())
