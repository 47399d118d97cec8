"""Alert rules and dashboard: they name only metrics that exist, and a real Prometheus loads them beside a live sidecar."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.console.metrics_text import read_metrics
from extauthz.console.prometheus import read_activity
from extauthz.core.model import Reason
from extauthz.process.clock import SystemClock
from tests.support.deployment import ALERTS, ALERTS_FILE, RULES
from tests.support.metric_names import LABELS, OF_THE_CLIENT, OF_THE_TARGET
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.sidecar import Sidecar, sidecar
from tests.support.waiting import eventually
from tests.support.world import bearer

__all__ = ["sidecar"]

TESTS_FILE = ROOT / "deploy" / "prometheus" / "tests" / "alerts.yaml"
DASHBOARD_FILE = ROOT / "deploy" / "grafana" / "extauthz.json"
RUNBOOKS = ROOT / "docs" / "runbooks"

DASHBOARD = json.loads(DASHBOARD_FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SECTIONS = ("## Meaning", "## Impact", "## What to look at", "## What to do")

_GROUPING = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def program(name: str) -> str:
    """Return the path of one of the two programs of Debian's package prometheus."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(
            f"{name} is not installed; on Debian: apt-get install prometheus (`make test` does that for root)", pytrace=False
        )
    return found


def metrics_in(query: str) -> set[str]:
    """Return the names of the series that a PromQL query asks for."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    text = re.sub(_GROUPING, " ", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text))
    return set(re.findall(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(?!\s*\()", text)) - _WORDS - {"inf", "nan"}


def labels_in(query: str) -> set[str]:
    """Return the labels that a query selects or groups by."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    selected = re.findall(r"[{,]\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)", text)
    return {*selected, *(label.strip() for group in re.findall(_GROUPING, text) for label in group.split(",") if label.strip())}


def wrong_names(query: str) -> set[str]:
    """Return the metrics and labels of a query that do not exist."""
    metrics = metrics_in(query)
    known = {label for metric in metrics for label in LABELS.get(metric, ())} | set(OF_THE_TARGET)
    return (metrics - LABELS.keys()) | (labels_in(query) - known)


def panel_queries() -> dict[str, str]:
    """Return the queries of the dashboard by where they stand, with its variables filled in."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    found |= {entry["name"]: entry["expr"] for entry in DASHBOARD["annotations"]["list"]}
    return {
        where: query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
        for where, query in found.items()
    }


# --- names


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('sum by (reason) (rate(extauthz_checks_total{job=~"a|b", decision="deny"}[5m])) > 0', set()),
        ("absent(extauthz_build_info) or up == 0", set()),
        ('sum by (path) (rate(extauthz_checks_total{reason="extauthz_x"}[5m]))', {"path"}),
        (
            'rate(extauthz_check_total[5m]) / on (job) group_left () rate(extauthz_checks_total{host="x"}[1m])',
            {"extauthz_check_total", "host"},
        ),
        (
            "histogram_quantile(0.99, sum by (le) (rate(extauthz_check_duration_seconds[5m])))",
            {"extauthz_check_duration_seconds", "le"},
        ),
    ],
)
def test_a_name_that_does_not_exist_is_found(query: str, wrong: set[str]) -> None:
    assert wrong_names(query) == wrong


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_names_only_what_exists(name: str) -> None:
    assert wrong_names(ALERTS[name]["expr"]) == set()


@pytest.mark.parametrize("where", panel_queries())
def test_a_panel_names_only_what_exists(where: str) -> None:
    assert wrong_names(panel_queries()[where]) == set()


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    shown = {metric for query in panel_queries().values() for metric in metrics_in(query)}
    durations = ("extauthz_check_duration_seconds", "extauthz_console_request_seconds")
    parts = {f"{name}_{part}" for name in durations for part in ("sum", "count")}
    assert {name for name in LABELS if name.startswith("extauthz_")} - shown == parts


def test_failures_of_ours_are_those_with_a_status_from_500() -> None:
    """All but draining, which belongs to every restart; in the alert and on the dashboard alike."""
    failures = {reason.value for reason in Reason if reason.status >= 500} - {"draining"}
    queries = [ALERTS["ExtauthzErrors"]["expr"], panel_queries()["Not answered A"]]
    assert [set(re.findall(r'reason=~"([^"]+)"', query)[0].split("|")) for query in queries] == [failures, failures]


# --- alerts


def test_there_is_an_alert_for_each_concern() -> None:
    assert len(ALERTS) == len(RULES) >= 25
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Extauthz[A-Za-z]+", name)
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    runbook = ROOT / rule["annotations"]["runbook_url"]
    assert runbook == RUNBOOKS / f"{name}.md"
    text = runbook.read_text()
    assert text.startswith(f"# {name}\n")
    assert tuple(re.findall(r"^## .*$", text, re.MULTILINE)) == SECTIONS


def test_every_runbook_has_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)


@pytest.mark.parametrize("name", [*ALERTS, "README"])
def test_a_runbook_names_only_metrics_that_exist(name: str) -> None:
    named = set(re.findall(r"\bextauthz_[a-z_]+\b", (RUNBOOKS / f"{name}.md").read_text())) - {"extauthz_sidecar", "extauthz_admin"}
    assert named <= LABELS.keys()


def test_the_rules_are_sound() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", ALERTS_FILE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, f"{len(RULES)} rules found" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    done = subprocess.run(
        [program("promtool"), "test", "rules", TESTS_FILE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    """In each test some moment is silent, and the alerts of the others are all that fire."""
    fires: set[str] = set()
    for test in yaml.safe_load(TESTS_FILE.read_text())["tests"]:
        moments = [
            {re.findall(r'alertname="(\w+)"', sample["labels"])[0] for sample in moment["exp_samples"]}
            for moment in test["promql_expr_test"]
        ]
        assert set() in moments, f"{test['name']}: it always fires"
        fires.update(*moments)
    assert fires == set(ALERTS)


# --- the dashboard


def test_the_dashboard_has_a_data_source_to_choose() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    for name in ("job", "instance"):
        assert variables[name]["datasource"] == DATA_SOURCE
        definition = variables[name]["definition"]
        named = re.match(r'label_values\(\{__name__=~"([a-z_|]+)"', definition)
        # Else the console's row would have no instance to choose.
        assert set(named[1].split("|") if named else ()) == {"extauthz_build_info", "extauthz_console_build_info"} <= LABELS.keys()
        assert definition == variables[name]["query"]["query"]
    assert DASHBOARD["uid"] == "extauthz"
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD, "the number of one database"


UNITS = {"none", "short", "reqps", "cps", "s", "percentunit", "bytes"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "stat"}  # why: both kinds are used
    assert panel["datasource"] == DATA_SOURCE
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))
    for target in panel["targets"]:
        assert target["datasource"] == DATA_SOURCE
        assert re.findall(r"\$\w+", target["expr"].replace("$__rate_interval", "")) in (
            ["$job", "$instance"] * n for n in range(1, 5)
        )
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert re.search(rf"\bby \([^)]*\b{label}\b", target["expr"]), f"the legend wants {label}"


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


# --- a real Prometheus


class Prometheus:
    """A Prometheus that looks at one sidecar twice a second, with our alert rules."""

    def __init__(self, folder: Path, target: str) -> None:
        """Start it."""
        self.address = f"127.0.0.1:{free_port()}"
        configuration = folder / "prometheus.yml"
        often = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        job = {"job_name": "extauthz", "static_configs": [{"targets": [target]}]}
        configuration.write_text(yaml.safe_dump({"global": often, "rule_files": [str(ALERTS_FILE)], "scrape_configs": [job]}))
        subprocess.run([program("promtool"), "check", "config", configuration], check=True, capture_output=True, timeout=30)
        self.log = folder / "prometheus.log"
        flags = (f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([program("prometheus"), *flags, "--log.level=warn"], stdout=output, stderr=output)

    def get(self, path: str, **parameters: str) -> Any:
        """Ask its API; raises OSError while it is not there, ValueError with its words for a query that it cannot read."""
        address = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read().decode()) from error

    def value(self, query: str) -> float | None:
        """Return the value of the only series that a query finds, None if there is none."""
        found = self.get("query", query=query)["result"]
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else None

    def wait(self, query: str, value: float) -> None:
        """Wait until a query has a value."""
        seen: object = "nothing"

        def is_there() -> bool:
            nonlocal seen
            assert self.process.poll() is None, self.log.read_text()
            try:
                seen = self.value(query)
            except OSError as error:
                seen = error
            return seen == value

        eventually(is_there, seconds=60, pause=0.05, what=lambda: f"{query}: {seen}\n{self.log.read_text()}")


@pytest.fixture
def prometheus(tmp_path: Path, sidecar: Sidecar) -> Iterator[Prometheus]:
    """A Prometheus that looks at the sidecar."""
    started = Prometheus(tmp_path, sidecar.settings["server"]["ops"])
    yield started
    started.process.terminate()
    try:
        started.process.wait(timeout=10)
    finally:
        started.process.kill()
        started.process.wait()


async def console_sees(sidecar: Sidecar, prometheus: Prometheus) -> None:
    """Ask Prometheus as the console does, and read the sidecar's page as it does, beside the parser of the client library."""
    address, fetcher = f"http://{prometheus.address}", JsonFetcher(timeout=20.0)
    try:
        async with asyncio.timeout(60):
            activity = await read_activity(fetcher, address, SystemClock.now(), sidecars=None)
            while [layer.name for layer in activity.denied] != ["credential_missing"]:
                await asyncio.sleep(0.1)  # why: Prometheus scrapes twice a second
                activity = await read_activity(fetcher, address, SystemClock.now(), sidecars=None)
    finally:
        await fetcher.close()
    assert activity.routes[0].denied > 0
    (known,) = activity.sidecars
    assert (known.name, known.answers) == (sidecar.settings["server"]["ops"], True)

    _, text = sidecar.page("/metrics")
    scrape = read_metrics(text)
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    parsed: dict[tuple[str, str, str], float] = {}
    for each in samples:
        if each.name == "extauthz_checks_total":
            key = (each.labels["decision"], each.labels["reason"], each.labels["route"])
            parsed[key] = parsed.get(key, 0.0) + each.value
    by_name = {each.name: each for each in samples}
    assert scrape.checks == parsed != {}
    assert scrape.facts.version == by_name["extauthz_build_info"].labels["version"]
    assert scrape.facts.config_hash == by_name["extauthz_config_info"].labels["hash"]
    assert scrape.facts.audit_position == by_name["extauthz_audit_position"].value > 0
    assert scrape.facts.started_at == by_name["process_start_time_seconds"].value
    assert (scrape.facts.is_ready, scrape.facts.is_config_stale, scrape.facts.is_rewound) == (True, False, False)


def test_prometheus_sees_a_live_sidecar(sidecar: Sidecar, prometheus: Prometheus) -> None:
    token = sidecar.token()
    sidecar.start()
    for _ in range(3):
        assert sidecar.check(bearer(token)).status.code == 0
    assert sidecar.check({}).denied_response.status.code == 401
    prometheus.wait('up{job="extauthz"}', 1)
    prometheus.wait('sum(extauthz_checks_total{decision="allow", reason="allowed", auth_type="USER"})', 3)
    prometheus.wait('sum(extauthz_checks_total{decision="deny", reason="credential_missing"})', 1)
    prometheus.wait("sum(extauthz_check_duration_seconds_count)", 4)
    prometheus.wait("count(extauthz_build_info)", 1)
    prometheus.wait(f'count(count by (__name__) ({{__name__=~"{"|".join(OF_THE_CLIENT)}"}}))', len(OF_THE_CLIENT))

    for where, query in panel_queries().items():
        try:
            prometheus.get("query", query=query)
        except ValueError as error:
            pytest.fail(f"{where}: {query}\n{error}")
    with pytest.raises(ValueError, match="parse error"):
        prometheus.get("query", query="sum by (")

    for _ in range(2):
        assert sidecar.check({}).denied_response.status.code == 401
    asyncio.run(console_sees(sidecar, prometheus))

    eventually(
        lambda: {rule["health"] for rule in rules_of(prometheus)} == {"ok"},
        seconds=60,
        pause=0.05,
        what=lambda: [(rule["name"], rule["lastError"]) for rule in rules_of(prometheus) if rule["lastError"]],
    )
    assert {rule["name"] for rule in rules_of(prometheus)} == set(ALERTS)
    assert [rule["name"] for rule in rules_of(prometheus) if rule["state"] == "firing"] == []

    assert sidecar.stop() == 0
    prometheus.wait('up{job="extauthz"}', 0)
    prometheus.wait('count(ALERTS{alertname="ExtauthzTargetDown", alertstate="pending"})', 1)


def rules_of(prometheus: Prometheus) -> list[dict[str, Any]]:
    """Return its alert rules as it has evaluated them."""
    return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
