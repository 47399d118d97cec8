"""Several workers behind a real Envoy: replaced, killed and reconfigured under load, without a request that fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauthz.demo.launcher import Demo
from extauthz.demo.wiring import EnvoyLink, Wiring, write_certificate
from tests.support.demo_processes import nothing_more, sidecar_of, under_load, until
from tests.support.running import RunningDemo, running_demo

pytestmark = [pytest.mark.envoy, pytest.mark.long]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Two workers, each on a socket of its own."""
    # Envoy looks every second and believes what it sees twice.
    wiring = Wiring(link=EnvoyLink.UNIX, workers=2, drain="3s")
    with running_demo(Path(tmp_path_factory.mktemp("w")), nothing_more, wiring=wiring) as demo:
        yield demo


def workers(demo: Demo) -> set[int]:
    """Return the processes of the workers."""
    parent = sidecar_of(demo)
    return set(filter(is_worker, map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())))


def is_worker(process: int) -> bool:
    try:
        return "worker" in Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return False


def page(demo: Demo, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.ports.ops}{path}", timeout=10) as response:
        return str(response.read().decode())


def ready(demo: Demo) -> dict[str, bool]:
    try:
        return dict(json.loads(page(demo, "/readyz"))["parts"])
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.loads(error.read())["parts"])


def details(demo: Demo) -> dict[str, bool]:
    """Return the details of /readyz, none while nobody answers there."""
    with contextlib.suppress(OSError):
        return {one["key"]: one["met"] for one in json.loads(page(demo, "/readyz"))["details"]}
    return {}


def metric(demo: Demo, series: str) -> float:
    lines = [line.rpartition(" ") for line in page(demo, "/metrics").splitlines() if line.startswith(series)]
    return sum(float(value) for _, _, value in lines)


def test_a_rolling_restart_loses_no_request(two: RunningDemo) -> None:
    demo = two.demo
    before = workers(demo)
    assert len(before) == 2
    with under_load(demo) as load:
        os.kill(sidecar_of(demo), signal.SIGUSR2)
        until(lambda: len(workers(demo)) == 2 and not workers(demo) & before and all(ready(demo).values()))
    assert set(load.statuses) == {200}, load.statuses
    assert metric(demo, "extauthz_worker_restarts_total") == 0, "nobody ended by himself"


def test_a_worker_that_is_killed_costs_no_request_and_comes_back(two: RunningDemo) -> None:
    demo = two.demo
    until(lambda: all(ready(demo).values()))
    time.sleep(2)  # why: both have to be healthy in the eyes of Envoy too, which looks once a second
    victim = min(workers(demo))
    checks = metric(demo, "extauthz_checks_total")
    with under_load(demo) as load:
        os.kill(victim, signal.SIGKILL)
        until(lambda: not all(ready(demo).values()))
        until(lambda: victim not in workers(demo) and len(workers(demo)) == 2 and all(ready(demo).values()))
    assert set(load.statuses) == {200}, load.statuses
    assert metric(demo, "extauthz_worker_restarts_total") == 1
    # What the one that is gone had counted when it was last asked is not lost.
    assert metric(demo, "extauthz_checks_total") >= checks


def replace(file: Path, text: str) -> None:
    """Write a file that nobody sees half."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_a_reload_reaches_every_worker(two: RunningDemo) -> None:
    demo = two.demo
    routes = demo.folder / "demo-routes.yaml"
    before = routes.read_text()
    assert two.send("GET /new").status == 403
    with under_load(demo) as load:
        replace(routes, before + '  - {match: "GET /new", public: true}\n')
        until(lambda: metric(demo, 'extauthz_config_reloads_total{result="ok"}') == 1)
        assert {two.send("GET /new").status for _ in range(20)} == {200}
        replace(routes, before + '  - {match: "GET /newer", pubic: true}\n')
        until(lambda: metric(demo, 'extauthz_config_reloads_total{result="failed"}') == 1)
        assert {two.send("GET /new").status for _ in range(20)} == {200}, "the last good one goes on"
    assert set(load.statuses) == {200}, load.statuses
    assert metric(demo, "extauthz_config_stale") == 1
    problem = json.loads(page(demo, "/config"))["problem"]
    assert "demo-routes.yaml:3: routes[1].pubic: the log says why" in problem


def test_a_worker_that_hangs_holds_nobody_up_and_is_replaced(two: RunningDemo) -> None:
    """It is stopped, does not even read, and a reload of a large configuration is on its way to it."""
    demo = two.demo
    routes = demo.folder / "demo-routes.yaml"
    until(lambda: all(ready(demo).values()))
    victim = min(workers(demo))
    os.kill(victim, signal.SIGSTOP)
    try:
        many = "".join(f'  - {{match: "GET /many/{number}/of/them", public: true}}\n' for number in range(3000))
        routes.write_text('routes:\n  - {match: "GET|HEAD /healthz", public: true}\n' + many)
        until(lambda: not all(ready(demo).values()))
        # The reload is refused, the worker that hangs is ended, and the next attempt reaches both.
        until(lambda: victim not in workers(demo))
        until(lambda: len(workers(demo)) == 2 and all(ready(demo).values()))
        until(lambda: metric(demo, "extauthz_config_stale") == 0)
        assert {two.send("GET /many/7/of/them").status for _ in range(20)} == {200}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)


def test_the_figures_are_those_of_all_workers(two: RunningDemo) -> None:
    demo = two.demo
    series = 'extauthz_checks_total{auth_type="USER",decision="allow",reason="allowed"'
    before = metric(demo, series)
    for _ in range(40):
        assert two.send("POST /rest/api/v1/chat", [("Authorization", f"Bearer {demo.tokens['USER_TOKEN']}")]).status == 200
    assert metric(demo, series) == before + 40
    assert metric(demo, "extauthz_worker_up") == 2


def test_one_worker_loses_what_comes_while_it_is_away_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a restart costs without a second worker: 503, never an allow, until Envoy has seen the new process."""
    with running_demo(Path(tmp_path_factory.mktemp("o")), nothing_more, wiring=Wiring(link=EnvoyLink.UNIX)) as one:
        demo, left = one.demo, sidecar_of(one.demo)
        serve = [sys.executable, "-m", "extauthz", "serve", "--config", str(demo.configuration)]
        with under_load(demo) as load, contextlib.ExitStack() as stack:
            away_at = time.monotonic()
            os.kill(left, signal.SIGTERM)
            until(lambda: load.statuses.get(503, 0) > 0 and not Path(f"/proc/{left}").exists())
            again = stack.enter_context(subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(again.terminate)
            good = load.statuses[200]
            until(lambda: load.statuses[200] > good)
            away = time.monotonic() - away_at
            until(lambda: load.statuses[200] > good + 50)
        assert set(load.statuses) == {200, 503}
        sys.stdout.write(
            f"one worker, restarted: {load.statuses[503]} of {load.sent} requests refused, {away:.1f} s until it answered\n"
        )


def test_workers_outlive_their_parent_until_there_is_a_new_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    wiring = Wiring(link=EnvoyLink.UNIX, workers=2)
    with running_demo(Path(tmp_path_factory.mktemp("p")), nothing_more, wiring=wiring) as running, contextlib.ExitStack() as stack:
        demo, left = running.demo, workers(running.demo)
        assert len(left) == 2
        with under_load(demo) as load:
            os.kill(sidecar_of(demo), signal.SIGKILL)
            until(lambda: details(demo).get("parent_running") is False)
            checks = metric(demo, "extauthz_checks_total")
            until(lambda: metric(demo, "extauthz_checks_total") > checks)
            running.run(demo.extauthz("token", "revoke", demo.ids["GLOBAL"], "--yes"))
            revoked = [("Authorization", f"Bearer {demo.tokens['GLOBAL']}")]
            until(lambda: {running.send("POST /rest/api/v1/search", revoked).status for _ in range(4)} == {401})
            serve = [sys.executable, "-m", "extauthz", "serve", "--config", str(demo.configuration)]
            again = stack.enter_context(subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(again.terminate)
            until(lambda: not any(is_worker(process) for process in left))
            until(lambda: ready(demo) == {"worker 0": True, "worker 1": True})
        assert set(load.statuses) == {200}, load.statuses


def test_a_signal_to_the_whole_process_group_leaves_the_drain_its_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A service manager signals parent and workers at once; that the parent then says the same is no second time."""
    wiring = Wiring(link=EnvoyLink.UNIX, workers=2, drain="3s")
    with running_demo(Path(tmp_path_factory.mktemp("g")), nothing_more, wiring=wiring) as demo:
        left = workers(demo.demo)
        started = time.monotonic()
        os.killpg(sidecar_of(demo.demo), signal.SIGTERM)
        until(lambda: not any(is_worker(process) for process in left))
        # The drain less what is left for the checks under way at its end, and less a tick of the clock.
        assert time.monotonic() - started > 1.9


def test_certificates_that_change_under_load_cost_no_request(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(tmp_path_factory.mktemp("c"))
    with running_demo(folder, nothing_more, wiring=Wiring(link=EnvoyLink.MTLS)) as demo:
        log = folder / "sidecar.log"
        with under_load(demo.demo) as load:
            expiry = metric(demo.demo, "extauthz_tls_certificate_expiry_timestamp_seconds")
            write_certificate(folder, "server")
            until(lambda: "certificates reloaded" in log.read_text())
        assert set(load.statuses) == {200}, load.statuses
        assert metric(demo.demo, "extauthz_tls_certificate_expiry_timestamp_seconds") > expiry
