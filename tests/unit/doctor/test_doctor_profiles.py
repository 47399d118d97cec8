"""What `extauthz doctor --profile` knows of each control plane, without an Envoy: tables that are whole, dumps that are none."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.doctor import envoy_admin, envoy_dump, envoy_planes
from extauthz.doctor.advice import Advisor
from extauthz.doctor.envoy_dump import Dump, Manager
from extauthz.doctor.findings import Level, problem, warning
from extauthz.doctor.profiles import PROFILES
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.reading import sidecar_of
from tests.support.envoy_faults import FAULTS, configured

# What has no field of a control plane's: it comes from a patch, or is mended elsewhere.
ELSEWHERE = {
    *("envoy.shadow_mode", "envoy.disallowed_headers", "envoy.health", "envoy.checked_twice"),
}
ELSEWHERE_IN = {
    ControlPlane.ENVOY_GATEWAY: {"envoy.disabled"},
    ControlPlane.ISTIO: {"envoy.allowed_headers"},
    ControlPlane.CONTOUR: {"envoy.disabled", "envoy.allowed_headers", "envoy.panic_threshold"},
}
NAMES = sorted({name for _, expected in FAULTS.values() for name, level in expected if level is not Level.OK} - ELSEWHERE)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    return load(configured(tmp_path_factory.mktemp("c"), "127.0.0.1:9001"))


@pytest.mark.parametrize("plane", ControlPlane)
@pytest.mark.parametrize("name", NAMES)
def test_every_finding_has_advice_or_is_a_limit(name: str, plane: ControlPlane, loaded: Configuration) -> None:
    profile = PROFILES[plane]
    assert (name in profile.advice or name in profile.limits) == (name not in ELSEWHERE_IN[plane])
    sidecar = sidecar_of(loaded)
    # Whatever a table says can be written.
    for advice in profile.advice.get(name, ()):
        (advised,) = Advisor(plane, sidecar).advise([problem(name, f"x {advice.only}", "generic")])
        assert advised.advice not in ("", "generic")
        assert "{timeout}" not in advised.advice
        assert "{{" not in advised.advice


def test_without_a_profile_nothing_is_changed(loaded: Configuration) -> None:
    advisor = Advisor(None, sidecar_of(loaded))
    result = [problem("envoy.timeout", "a", "b"), warning("envoy.status_on_error", "c", "d")]
    assert advisor.advise(result) == result
    assert list(advisor.limits()) == []


NONSENSE: list[Any] = [None, [], {}, {"configs": None}, {"configs": [None, 1, {"@type": 5}]}, "text"]


@pytest.mark.parametrize("plane", ControlPlane)
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_dump_that_is_none_is_no_check(nonsense: Any, plane: ControlPlane, loaded: Configuration) -> None:
    result = envoy_admin.judge(envoy_dump.read_dump(nonsense, nonsense, nonsense), loaded, plane)
    assert ("envoy.ext_authz", Level.PROBLEM) in [(each.name, each.level) for each in result]


CHECK = {"grpc_service": {"envoy_grpc": {"cluster_name": "securitypolicy/a/b/0"}}}
MARKED = {"filter": "rbac", "value": {"string_match": {"prefix": "istio-ext-authz"}}}
ANY = {"permissions": [{"any": True}], "principals": [{"any": True}]}


def manager(check: dict[str, Any], *before: envoy_dump.Filter, disabled: bool = False, routes: Any = None) -> Manager:
    asking = envoy_dump.Filter("x", envoy_dump.EXT_AUTHZ, check, disabled)
    return Manager("listener a", {}, (*before, asking), routes)


def read(plane: ControlPlane, one: Manager) -> tuple[Manager, ...]:
    return envoy_planes.adapt(Dump("", "", (one,), {}, {}), plane)[0].managers


@pytest.mark.parametrize(
    ("policies", "whole"),
    [
        ({"istio-ext-authz-1": ANY}, True),
        ({"istio-ext-authz-1": {"permissions": [{"and_rules": {"rules": [{"any": True}]}}], "principals": [{"any": True}]}}, True),
        (
            {
                "istio-ext-authz-1": {
                    "permissions": [{"or_rules": {"rules": [{"a": 1}, {"any": True}]}}],
                    "principals": [{"any": True}],
                }
            },
            True,
        ),
        ({"a": ANY}, False),
        ({"istio-ext-authz-1": ANY | {"principals": [{"authenticated": {}}]}}, False),
        ({"istio-ext-authz-1": ANY | {"permissions": [{"and_rules": {"rules": [{"any": True}, {"a": 1}]}}]}}, False),
        ({"istio-ext-authz-1": ANY | {"permissions": [{"or_rules": {"rules": []}}]}}, False),
        ({"istio-ext-authz-1": ANY | {"permissions": [{"and_rules": {"rules": []}}]}}, False),
        ({"istio-ext-authz-1": ANY | {"permissions": [{"not_rule": {"any": True}}]}}, False),
        ({"istio-ext-authz-1": ANY | {"permissions": []}}, False),
        ({"istio-ext-authz-1": None}, False),
        ({}, False),
        (None, False),
        ([ANY], False),
    ],
)
def test_only_a_rule_that_is_always_met_marks_every_request(policies: Any, *, whole: bool) -> None:
    marking = envoy_dump.Filter("rbac", envoy_planes.RBAC, {"shadow_rules": {"policies": policies}})
    (result,) = read(ControlPlane.ISTIO, manager(CHECK | {"filter_enabled_metadata": MARKED}, marking))
    assert ("filter_enabled_metadata" not in result.filters[1].config) is whole


def test_a_rule_behind_the_check_marks_nothing() -> None:
    marking = envoy_dump.Filter("rbac", envoy_planes.RBAC, {"shadow_rules": {"policies": {"istio-ext-authz-1": ANY}}})
    one = manager(CHECK | {"filter_enabled_metadata": MARKED})
    (result,) = read(ControlPlane.ISTIO, Manager(one.where, {}, (*one.filters, marking), None))
    assert "filter_enabled_metadata" in result.filters[0].config


def test_a_filter_that_no_route_switches_on_asks_nobody() -> None:
    routes = {"virtual_hosts": [{"name": "a", "routes": [{"match": {"prefix": "/"}}]}]}
    (result,) = read(ControlPlane.ENVOY_GATEWAY, manager(CHECK, disabled=True, routes=routes))
    assert result.filters == ()
    # Where routes are not in the dump the filter is judged, and that they are missing is a finding of its own.
    (result,) = read(ControlPlane.ENVOY_GATEWAY, manager(CHECK, disabled=True))
    assert [each.disabled for each in result.filters] == [False]


@pytest.mark.parametrize("routes", [{"virtual_hosts": [None, {"routes": [None, 1, {"typed_per_filter_config": []}]}]}, {}, []])
def test_routes_that_are_none_switch_nothing_on(routes: Any) -> None:
    (result,) = read(ControlPlane.ENVOY_GATEWAY, manager(CHECK, disabled=True, routes=routes))
    assert result.filters == ()
