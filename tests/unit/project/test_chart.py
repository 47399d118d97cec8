"""The chart's values: what they change, that nothing changes without them, and that the recipes of the documents render."""

from __future__ import annotations

import json
import re
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from extauthz import __version__
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from tests.support.custom_resources import faults
from tests.support.documents import yaml_blocks
from tests.support.kubernetes import (
    CHART,
    EXAMPLE,
    KUBERNETES,
    RECIPES,
    Manifest,
    built,
    charts,
    laid_out,
    laid_over,
    named,
    pod_of,
    rendered,
    texts,
    with_all_workloads,
)
from tests.support.project import ROOT

DEFAULTS = ROOT / "tests" / "data" / "chart-defaults.yaml"
"""What the chart made before it had most of its values; `python -m tests.unit.project.test_chart` writes it anew."""
VERSION = "1.37"
"""The newest; the other ones see everything that the chart makes in test_kubernetes.py."""
CHANGED = {"Deployment", "Job", "CronJob", "NetworkPolicy", "HorizontalPodAutoscaler"}
"""The kinds that values change."""
MIGRATE = EXAMPLE | {"migrate": {"enabled": True}, "console": {"enabled": False}}


# --- without new values nothing changes


def default_texts() -> str:
    """Return what the chart makes with the values that it had before, but for whole files that it only brings along."""
    before = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard", "migrate")}
    made = texts(EXAMPLE | before)
    for name in ("dashboard.yaml", "prometheusrule.yaml", "configmap.yaml"):
        del made[name]
    return "".join(f"# {name}\n{made[name].replace(__version__, 'VERSION')}\n" for name in sorted(made))


def test_the_default_is_what_it_was_byte_for_byte() -> None:
    assert default_texts() == DEFAULTS.read_text()


# --- values reach their place


VOLUME = {"name": "more", "emptyDir": {}}
MOUNT = {"name": "more", "mountPath": "/more"}
VARIABLE = {"name": "PEPPER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
BEFORE, BESIDE = {"name": "proxy", "image": "proxy:1.0", "restartPolicy": "Always"}, {"name": "agent", "image": "agent:1.0"}
EXTRAS = {"extraVolumes": [VOLUME], "extraVolumeMounts": [MOUNT], "extraEnv": [VARIABLE], "extraInitContainers": [BEFORE]}
WORKLOADS = {
    "deployment.yaml": None,
    "console-deployment.yaml": "console",
    "migrate.yaml": "migrate",
    "admin-deployment.yaml": "admin",
    "admin-job.yaml": "admin",
}
"""The section of the values that each pod has its own in."""
JOBS = {"migrate.yaml", "admin-job.yaml"}


def check(made: dict[str, list[Manifest]]) -> None:
    """Hold what values change against the schemas of Kubernetes."""
    for manifest in (manifest for manifests in made.values() for manifest in manifests):
        if manifest["kind"] in CHANGED:
            kubernetes_validate.validate(deepcopy(manifest), VERSION, strict=True)


@pytest.mark.parametrize("template", WORKLOADS)
def test_more_volumes_containers_and_variables_reach_their_pod_alone(template: str) -> None:
    section = WORKLOADS[template]
    extras = EXTRAS if section == "migrate" else EXTRAS | {"extraContainers": [BESIDE]}
    made = rendered(**with_all_workloads(extras if section is None else {section: extras}))
    check(made)
    pod = pod_of(made[template])
    own = pod["containers"][0]
    assert own["env"] == [VARIABLE]
    assert own["volumeMounts"][1:] == [MOUNT]
    assert pod["volumes"][1:] == [VOLUME]
    assert pod["initContainers"] == [BEFORE]
    assert pod["containers"][1:] == ([] if template in JOBS else [BESIDE]), "a job that does not end is none"
    for other in WORKLOADS.keys() - {name for name, its in WORKLOADS.items() if its == section}:
        assert "more" not in json.dumps(pod_of(made[other]))


def test_every_pod_looks_up_names_as_the_values_say() -> None:
    config = {"options": [{"name": "ndots", "value": "2"}]}
    made = rendered(**with_all_workloads({"dnsPolicy": "ClusterFirst", "dnsConfig": config}))
    check(made)
    for template in WORKLOADS:
        pod = pod_of(made[template])
        assert (pod["dnsPolicy"], pod["dnsConfig"]) == ("ClusterFirst", config)


def test_network_policies_let_every_pod_ask_the_cache_on_its_node() -> None:
    addresses = ["169.254.20.10", "fd00::a"]
    made = rendered(**with_all_workloads({"networkPolicy": {"nodeLocalDNS": addresses}}))
    check(made)
    policies = [manifest for manifests in made.values() for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    assert len(policies) == 3
    for policy in policies:
        names = policy["spec"]["egress"][0]
        assert [peer["ipBlock"]["cidr"] for peer in names["to"][1:]] == ["169.254.20.10/32", "fd00::a/128"]
        assert {port["port"] for port in names["ports"]} == {53}


def test_the_autoscaler_owns_the_number_of_pods() -> None:
    assert "replicas" in rendered()["deployment.yaml"][0]["spec"]
    memory = {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}
    scaling = {
        "enabled": True,
        "minReplicas": 3,
        "maxReplicas": 9,
        "targetCPUUtilizationPercentage": 150,
        "metrics": [{"type": "Resource", "resource": memory}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
    }
    made = rendered(autoscaling=scaling)
    check(made)
    (deployment,), (scaler,) = made["deployment.yaml"], made["horizontalpodautoscaler.yaml"]
    assert "replicas" not in deployment["spec"], "each upgrade would set it back"
    spec = scaler["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert (spec["minReplicas"], spec["maxReplicas"], spec["behavior"]) == (3, 9, scaling["behavior"])
    own, more = spec["metrics"]
    assert own["containerResource"]["container"] == deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    assert own["containerResource"]["target"]["averageUtilization"] == 150
    assert [more] == scaling["metrics"]
    with pytest.raises(helm_python.HelmError, match="minReplicas is more than maxReplicas"):
        rendered(autoscaling=scaling | {"minReplicas": 10})


def test_the_limit_of_connections_bears_the_most_pods() -> None:
    """`CONNECTION LIMIT` of the shipped accounts: two connections of each pod, and a third one now and then."""
    accounts = (ROOT / "deploy" / "compose" / "database-accounts.sh").read_text()
    limit = re.search(r"CREATE ROLE tokens_serve .* CONNECTION LIMIT (\d+);", accounts)
    assert limit is not None
    for scaler in (named("helm", "HorizontalPodAutoscaler"), *_built_with("autoscaling", "HorizontalPodAutoscaler")):
        assert scaler["spec"]["maxReplicas"] * 3 <= int(limit[1])


def test_constraints_without_a_selector_are_about_their_own_pods() -> None:
    own = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    other = own | {"labelSelector": {"matchLabels": {"a": "b"}}}
    made = rendered(topologySpreadConstraints=[own, other], console=EXAMPLE["console"] | {"topologySpreadConstraints": [own]})
    check(made)
    for template, constraints in (("deployment.yaml", [own, other]), ("console-deployment.yaml", [own])):
        (deployment,) = made[template]
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread[0]["labelSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
        assert spread[1:] == constraints[1:]


def test_the_job_that_migrates_is_scheduled_by_its_own_values() -> None:
    scheduling = {
        "nodeSelector": {"pool": "jobs"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "serviceAccountName": "migrator",
        "resources": {"requests": {"cpu": "1"}},
    }
    elsewhere = {"nodeSelector": {"pool": "gateways"}, "tolerations": [], "affinity": {}}
    labels = {"podLabels": {"egress": "database"}, "podAnnotations": {"sidecar.istio.io/inject": "false"}}
    made = rendered(**MIGRATE | elsewhere | {"migrate": {"enabled": True} | scheduling | labels})
    check(made)
    _, job = made["migrate.yaml"]
    pod = pod_of([job])
    assert pod | scheduling | {"containers": pod["containers"]} == pod | {"resources": scheduling["resources"]}
    assert pod["containers"][0]["resources"] == scheduling["resources"]
    assert job["spec"]["template"]["metadata"] == {"labels": labels["podLabels"], "annotations": labels["podAnnotations"]}


# --- peppers


def with_peppers(*peppers: dict[str, str]) -> dict[str, Any]:
    """Return values with these peppers."""
    files = [*EXAMPLE_FILES, "pepper-2027"]
    return laid_over(MIGRATE, {"config": {"tokens": {"peppers": list(peppers)}}, "secretFiles": files})


EXAMPLE_TLS = "extauthz-tls"
EXAMPLE_FILES = ["pepper", "store-password", "store-ca.crt"]
SECOND, FIRST = {"id": "p2", "file": "secrets/pepper-2027"}, {"id": "p1", "file": "secrets/pepper"}


def secrets_of(pod: Manifest) -> dict[str, set[str]]:
    """Return the keys that a pod takes of each secret."""
    sources = [source["secret"] for source in pod["volumes"][0]["projected"]["sources"] if "secret" in source]
    keys_by_name: dict[str, set[str]] = {}
    for secret in sources:
        if secret["name"] != EXAMPLE_TLS:
            keys_by_name[secret["name"]] = keys = {item["key"] for item in secret["items"]}
            assert {item["path"] for item in secret["items"]} == {f"secrets/{key}" for key in keys}
    return keys_by_name


def settings_in(manifest: Manifest) -> dict[str, Any]:
    """Return the extauthz.yaml of a ConfigMap."""
    settings: dict[str, Any] = yaml.safe_load(manifest["data"]["extauthz.yaml"])
    return settings


def test_the_job_that_migrates_has_every_pepper_in_its_own_file() -> None:
    """A pepper under another one's id would make a chain of the audit that nobody can verify."""
    made = rendered(**with_peppers(SECOND, FIRST))
    configuration, _ = made["migrate.yaml"]
    assert settings_in(configuration)["tokens"]["peppers"] == [SECOND, FIRST]
    assert secrets_of(pod_of(made["migrate.yaml"])) == {
        "extauthz-owner": {"owner-password", "store-ca.crt", "pepper", "pepper-2027"}
    }


def test_console_and_admin_have_every_pepper_too() -> None:
    values = with_all_workloads(
        {"config": {"tokens": {"peppers": [SECOND, FIRST]}}, "secretFiles": [*EXAMPLE_FILES, "pepper-2027"]}
    )
    made = rendered(**values)
    for template, own in (("console-deployment.yaml", "extauthz-console"), ("admin-deployment.yaml", "extauthz-admin")):
        secrets = secrets_of(pod_of(made[template]))
        assert secrets["extauthz"] == {"pepper", "pepper-2027", "store-ca.crt"}, "not the sidecars' password"
        assert own in secrets
    values = laid_over(values, {"console": {"secretFiles": ["console-password", "oidc-client-secret", "pepper"]}})
    secrets = secrets_of(pod_of(rendered(**values)["console-deployment.yaml"]))
    assert "pepper" in secrets["extauthz-console"]
    assert "pepper" not in secrets["extauthz"], "one file has one source"


def test_a_pepper_that_no_secret_brings_is_refused_by_its_name() -> None:
    values = with_peppers(SECOND, FIRST)
    with pytest.raises(helm_python.HelmError, match=r"secretFiles: config\.tokens\.peppers names secrets/pepper-2027"):
        rendered(**values | {"secretFiles": EXAMPLE_FILES})
    elsewhere = {"id": "p2", "file": "/vault/secrets/pepper"}
    assert rendered(**with_peppers(elsewhere) | {"secretFiles": EXAMPLE_FILES})


@pytest.mark.parametrize("tokens", [None, {}, {"peppers": []}, "left out"])
def test_a_migration_without_tokens_is_refused_by_its_name(tokens: Any) -> None:
    config = {name: value for name, value in EXAMPLE["config"].items() if name != "tokens"}
    values = MIGRATE | {"config": config if tokens == "left out" else config | {"tokens": tokens}}
    with pytest.raises(helm_python.HelmError, match=r"migrate\.enabled: there is no store .* config\.tokens\.peppers"):
        rendered(**values)


def test_a_migration_takes_the_peppers_of_whoever_has_some() -> None:
    config = {name: value for name, value in EXAMPLE["config"].items() if name != "tokens"}
    tokens = EXAMPLE["config"]["tokens"] | EXAMPLE["console"]["config"]["tokens"]
    console = laid_over(EXAMPLE["console"], {"config": {"tokens": tokens}})
    made = rendered(**MIGRATE | {"config": config, "console": console})
    assert settings_in(made["migrate.yaml"][0])["tokens"]["peppers"] == [FIRST]


def test_a_pepper_of_the_environment_is_one_of_the_job_too() -> None:
    values = with_peppers({"id": "p2", "env": "PEPPER"}, FIRST)
    with pytest.raises(helm_python.HelmError, match=r"migrate\.extraEnv: the pepper p2 .* PEPPER"):
        rendered(**values)
    made = rendered(**laid_over(values, {"migrate": {"extraEnv": [VARIABLE]}}))
    assert settings_in(made["migrate.yaml"][0])["tokens"]["peppers"] == [{"id": "p2", "env": "PEPPER"}, FIRST]
    assert secrets_of(pod_of(made["migrate.yaml"])) == {"extauthz-owner": {"owner-password", "store-ca.crt", "pepper"}}


# --- wrong values

WRONG = [
    ({"autoscaling": {"maxReplicas": "6"}}, "maxReplicas"),
    ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
    ({"extraVolumes": [{"name": "configuration", "emptyDir": {}}]}, "extraVolumes"),
    ({"extraVolumes": [{"name": "empty"}]}, "extraVolumes"),
    ({"extraVolumeMounts": [{"name": "more", "mountPath": "/etc/extauthz"}]}, "mountPath"),
    ({"migrate": {"extraVolumeMounts": [{"name": "more", "mountPath": "/etc/extauthz/secrets"}]}}, "mountPath"),
    ({"extraContainers": [{"name": "extauthz", "image": "x"}]}, "extraContainers"),
    ({"extraInitContainers": [{"name": "proxy"}]}, "image"),
    ({"dnsConfig": {"search": []}}, "'search'"),
    ({"dnsPolicy": "Cluster"}, "dnsPolicy"),
    ({"networkPolicy": {"nodeLocalDNS": ["169.254.20.10/32"]}}, "nodeLocalDNS"),
    ({"migrate": {"storePassword": "secret"}}, "storePassword"),
    ({"migrate": {"storePassword": {"file": "a", "env": "B"}}}, "storePassword"),
    ({"migrate": {"extraContainers": [BESIDE]}}, "extraContainers"),
    ({"admin": {"enabled": True}}, "tokens"),
    ({"admin": {"config": {"tokens": {"store": "postgresql://a:secret@host/db"}}}}, "store"),
    ({"admin": {"job": {"args": ["serve"]}}}, "args"),
    ({"admin": {"job": {"schedule": "daily"}}}, "schedule"),
    ({"externalSecrets": {"enabled": True, "secretStore": {"kind": "SecretStore", "name": ""}, "secrets": {}}}, "externalSecrets"),
    ({"externalSecrets": {"secrets": {"extauthz": {"pepper": {"property": "x"}}}}}, "pepper"),
]


@pytest.mark.parametrize(("values", "names"), WRONG)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], names: str) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match=names):
        chart.validate_schema(EXAMPLE | values)


# --- the admin


def loaded_of(made: dict[str, list[Manifest]], template: str, folder: Path) -> Configuration:
    """Load the configuration of a workload."""
    everything = [manifest for manifests in made.values() for manifest in manifests]
    return load(laid_out(everything, pod_of(made[template]), folder))


ADMINS = ("admin", "helm admin")


@pytest.mark.parametrize("where", ADMINS)
def test_the_admin_waits_for_commands_with_an_account_of_its_own(where: str, tmp_path: Path) -> None:
    manifests = [*built("overlays/standalone"), *built("admin")] if where == "admin" else list(charts())
    deployment, policy = named(where, "Deployment"), named(where, "NetworkPolicy")["spec"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["sleep", "infinity"]
    assert "ports" not in container
    assert policy["podSelector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy, "nobody"
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 5432}
    loaded = load(laid_out(manifests, pod, tmp_path / "pod"))
    assert loaded.settings.tokens is not None
    assert loaded.settings.tokens.store.startswith("postgresql://tokens_admin@")
    assert "store-password" not in json.dumps(pod)
    assert "owner" not in json.dumps(pod)


@pytest.mark.parametrize("where", ADMINS)
def test_the_job_of_the_admin_is_another_pod_with_the_same_policy(where: str) -> None:
    """`kubectl exec deploy/…` takes a pod by the selector of the Deployment, and the job's has ended."""
    deployment, policy = named(where, "Deployment")["spec"], named(where, "NetworkPolicy")["spec"]
    template = named(where, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert not deployment["selector"]["matchLabels"].items() <= labels.items()
    (container,) = template["spec"]["containers"]
    assert container["args"] == ["audit", "verify", "--config", "/etc/extauthz/extauthz.yaml"]
    assert template["spec"]["volumes"] == deployment["template"]["spec"]["volumes"]


def test_a_job_without_a_schedule_belongs_to_a_revision() -> None:
    made = rendered(**laid_over(with_all_workloads({}), {"admin": {"job": {"schedule": "", "args": ["store", "status"]}}}))
    check(made)
    (job,) = made["admin-job.yaml"]
    assert (job["kind"], job["metadata"]["name"]) == ("Job", "authz-extauthz-admin-1"), "jobs cannot be changed"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["store", "status"]


SHOWS_A_SECRET = ["token create", "token rotate", "token export", "console key create", "console add-user"]


@pytest.mark.parametrize("command", SHOWS_A_SECRET)
def test_no_job_prints_a_secret_into_its_log(command: str) -> None:
    assert CliRunner().invoke(main, [*command.split(), "--help"]).exit_code == 0, "there is such a command"
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match="args"):
        chart.validate_schema(EXAMPLE | {"admin": {"job": {"args": command.split()}}})


def token_commands() -> dict[str, str]:
    """Return the one command that makes a token in the cluster, as each place shows it."""
    notes = " ".join(texts(with_all_workloads({}))["NOTES.txt"].replace("\\\n", " ").split())
    page = (ROOT / "docs" / "deploy.md").read_text()
    matches = {"NOTES.txt": re.search(r"kubectl .*? -- (extauthz token create .*? --expires \w+)", notes)}
    matches["deploy.md"] = re.search(r"\$ kubectl .*? -- (extauthz token create .*)", page)
    return {place: match[1] for place, match in matches.items() if match is not None}


def test_the_one_command_makes_a_token_with_the_configuration_of_the_pod(tmp_path: Path) -> None:
    commands = token_commands()
    assert commands.keys() == {"NOTES.txt", "deploy.md"}
    file = laid_out(list(charts()), named("helm admin", "Deployment")["spec"]["template"]["spec"], tmp_path / "pod")
    text, count = re.subn(r"store: postgresql://.*", f"store: sqlite:///{tmp_path / 'data' / 'tokens.db'}", file.read_text())
    assert count == 1
    file.write_text(text)
    for command in commands.values():
        words = re.findall(r'"[^"]*"|\S+', command.replace("/etc/extauthz/extauthz.yaml", str(file)))
        program, *arguments = [word.strip('"') for word in words]
        done = CliRunner().invoke(main, arguments)
        assert (program, done.exit_code) == ("extauthz", 0), done.output
        assert "glean_" in done.stdout


def test_the_pod_ends_at_once() -> None:
    """As the first process of a container `sleep` does not hear SIGTERM: SIGKILL has to come soon."""
    pod = named("helm admin", "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 1
    assert subprocess.run([pod["containers"][0]["command"][0], "0"], timeout=10, check=False).returncode == 0


# --- secrets from elsewhere


def test_external_secrets_are_those_that_the_pods_mount() -> None:
    made = rendered(**laid_over(EXAMPLE, RECIPES["external-secrets"]))
    secrets = {manifest["spec"]["target"]["name"]: manifest for manifest in made["external-secrets.yaml"]}
    wanted: dict[str, set[str]] = {}
    for template in ("deployment.yaml", "console-deployment.yaml", "migrate.yaml"):
        for name, keys in secrets_of(pod_of(made[template])).items():
            wanted[name] = wanted.get(name, set()) | keys
    assert {name: {entry["secretKey"] for entry in manifest["spec"]["data"]} for name, manifest in secrets.items()} == wanted
    for name, manifest in secrets.items():
        assert faults(manifest) == []
        assert manifest["metadata"]["name"] == name
        assert manifest["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault"}
        assert all(entry["remoteRef"].keys() == {"key", "property"} for entry in manifest["spec"]["data"])
    hooks = {name: manifest["metadata"].get("annotations") for name, manifest in secrets.items()}
    assert hooks.pop("extauthz-owner") == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "-2",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }, "the job comes before the rest of the release"
    assert set(hooks.values()) == {None}
    policies = {name: manifest["spec"]["target"]["creationPolicy"] for name, manifest in secrets.items()}
    assert policies.pop("extauthz-owner") == "Orphan", "the hook is made anew each time, and the secret stays"
    assert set(policies.values()) == {"Owner"}


# --- recipes

LOCAL = {"cloud-sql"}
"""Recipes whose address stays within the pod: the proxy brings TLS."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_renders_and_its_configurations_load(name: str, tmp_path: Path) -> None:
    values = laid_over(EXAMPLE, RECIPES[name])
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
    made = rendered(**values)
    check(made)
    loaded = {"deployment.yaml": loaded_of(made, "deployment.yaml", tmp_path / "serve")}
    if "migrate" in RECIPES[name]:
        loaded["migrate.yaml"] = loaded_of(made, "migrate.yaml", tmp_path / "migrate")
    for template, configuration in loaded.items():
        assert "tokens.store" not in {warning.path for warning in configuration.warnings}, "nobody on the way gets the password"
        tokens = configuration.settings.tokens
        assert tokens is not None
        assert ("sslmode=verify-full" in tokens.store) == (name not in LOCAL)
        if name in LOCAL:
            assert "@127.0.0.1:" in tokens.store
        authority = re.search(r"sslrootcert=([^&]+)", tokens.store)
        if authority is not None:
            mounted = [mount["mountPath"] for mount in pod_of(made[template])["containers"][0]["volumeMounts"]]
            assert authority[1].startswith(("/vault/secrets/", *mounted))
    serve = loaded["deployment.yaml"].settings.tokens
    assert serve is not None
    open_ports = {port["port"] for rule in made["networkpolicy.yaml"][0]["spec"]["egress"] for port in rule["ports"]}
    port = re.search(r"@[^/]+:(\d+)/", serve.store)
    assert port is not None
    assert (int(port[1]) in open_ports) == (name not in LOCAL), "the network policy lets through what leaves the pod, and no more"


def test_what_the_page_on_secrets_makes_is_what_the_chart_mounts() -> None:
    blocks = [yaml.safe_load(block) for block in yaml_blocks((ROOT / "docs" / "cluster-secrets.md").read_text())]
    by_kind = {kind: [block for block in blocks if block["kind"] == kind] for kind in ("SecretProviderClass", "Certificate")}
    made = rendered(**laid_over(EXAMPLE, RECIPES["secrets-store"]))
    for template, provided in zip(("deployment.yaml", "migrate.yaml"), by_kind["SecretProviderClass"], strict=True):
        pod = pod_of(made[template])
        assert pod["volumes"][1]["csi"]["volumeAttributes"] == {"secretProviderClass": provided["metadata"]["name"]}
        (place,) = (mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets")
        settings = made["configmap.yaml" if template == "deployment.yaml" else template][0]["data"]["extauthz.yaml"]
        files = {entry["objectName"] for entry in yaml.safe_load(provided["spec"]["parameters"]["objects"])}
        assert set(re.findall(rf"{place}/([\w.-]+)", settings)) == files
    ours, _ = by_kind["Certificate"]
    assert [faults(certificate) for certificate in by_kind["Certificate"]] == [[], []]
    service = named("overlays/standalone", "Service")["metadata"]
    assert ours["spec"]["secretName"] == EXAMPLE_TLS
    assert ours["spec"]["dnsNames"] == [f"{service['name']}.{service['namespace']}.svc"]
    assert [block["spec"]["usages"] for block in by_kind["Certificate"]] == [["server auth"], ["client auth"]]


def test_the_port_of_a_proxy_is_not_one_of_ours() -> None:
    pod = pod_of(rendered(**laid_over(EXAMPLE, RECIPES["cloud-sql"]))["deployment.yaml"])
    (proxy,), (own,) = pod["initContainers"], pod["containers"]
    theirs = {int(value) for value in re.findall(r"--(?:http-)?port=(\d+)", " ".join(proxy["args"]))}
    assert proxy["restartPolicy"] == "Always", "the job ends although it goes on"
    assert proxy["startupProbe"]["httpGet"]["port"] in theirs
    assert not theirs & {port["containerPort"] for port in own["ports"]}


# --- kustomize


def _built_with(component: str, kind: str) -> list[Manifest]:
    folder = KUBERNETES / "components" / component
    return [manifest for manifest in built(str(folder)) if manifest["kind"] == kind]


@pytest.fixture
def with_components(tmp_path: Path) -> tuple[Manifest, ...]:
    """Build an overlay with both components on top of ours."""
    (tmp_path / "repository").symlink_to(ROOT)
    parts = ["overlays/standalone", "console", "admin"]
    overlay = {
        "resources": [str(Path("repository") / "deploy" / "kubernetes" / part) for part in parts],
        "components": [str(Path("repository") / "deploy" / "kubernetes" / "components" / part) for part in COMPONENTS],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return built(str(tmp_path))


COMPONENTS = ("autoscaling", "node-local-dns")


def test_components_change_what_they_say_and_nothing_else(with_components: tuple[Manifest, ...]) -> None:
    for manifest in with_components:
        kubernetes_validate.validate(deepcopy(manifest), VERSION, strict=True)
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in with_components}
    assert "replicas" not in by_name["Deployment", "extauthz"]["spec"]
    assert by_name["Deployment", "extauthz-admin"]["spec"]["replicas"] == 1
    ours = named("helm", "HorizontalPodAutoscaler")["spec"]
    theirs = by_name["HorizontalPodAutoscaler", "extauthz"]["spec"]
    assert theirs | {"scaleTargetRef": None} == ours | {"scaleTargetRef": None}, "the chart's default"
    policies = [manifest["spec"] for (kind, _), manifest in by_name.items() if kind == "NetworkPolicy"]
    assert len(policies) == 3
    for policy in policies:
        assert [peer["ipBlock"]["cidr"] for peer in policy["egress"][0]["to"][1:]] == ["169.254.20.10/32", "10.96.0.10/32"]


if __name__ == "__main__":
    DEFAULTS.write_text(default_texts())
