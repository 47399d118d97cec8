"""The ext_authz filter of a running Envoy, compared with what this configuration needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from extauthz.core.identity import IdentityHeaders
from extauthz.doctor.envoy_cluster import is_plain, not_plain
from extauthz.doctor.envoy_dump import Filter, at, seconds
from extauthz.doctor.findings import Finding, problem, warning
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Sidecar

DEFAULT_TIMEOUT = 0.2
DEFAULT_BACK_OFF = 1.0

_PRINT = "take it from 'extauthz envoy-config --part filter'"
# Every character but letters and digits that RFC 9110 5.6.2 lets a name have.
_SEPARATORS = "!#$%&'*+-.^_`|~"


def look(check: Filter, sidecar: Sidecar, where: str) -> Iterator[Finding]:
    """Yield what is not as it should be."""
    config = check.config
    if check.disabled:
        yield problem("envoy.disabled", "ext_authz is switched off here", "remove `disabled` from the filter", where=where)
    if (at(config, "filter_enabled") or at(config, "filter_enabled_metadata")) and at(config, "deny_at_disable") is None:
        text = "the check is left out for a part of the requests, which are then let through"
        yield problem(
            "envoy.disabled", text, "remove filter_enabled and filter_enabled_metadata, or write deny_at_disable", where=where
        )
    if at(config, "failure_mode_allow"):
        text = "failure_mode_allow is true: a check that fails, or takes too long, lets the request through"
        yield problem("envoy.failure_mode_allow", text, "write failure_mode_allow: false", where=where)
    if at(config, "shadow_mode"):
        text = "shadow_mode is true: no request is ever refused"
        yield problem("envoy.shadow_mode", text, "remove it; extauthz has `mode: monitor` for a trial", where=where)
    for key in ("allowed_headers", "disallowed_headers"):
        if at(config, key):
            text = f"{key} keeps headers from the check, and may keep a credential, an act-as header or a spelling of ours"
            yield problem(f"envoy.{key}", text, "remove the key: all headers are sent without it", where=where)
    yield from _recommendations(config, where)
    yield from _mutation(config, sidecar, where)
    if at(config, "grpc_service"):
        yield from _service(at(config, "grpc_service"), sidecar, where)
    else:
        yield problem("envoy.grpc_service", "the check is asked over HTTP, which extauthz does not speak", _PRINT, where=where)


def _recommendations(config: Mapping[str, Any], where: str) -> Iterator[Finding]:
    if not at(config, "encode_raw_headers"):
        text = "headers are sent joined, with '!' for bytes that are not UTF-8: the upstream may read others than extauthz"
        yield warning("envoy.encode_raw_headers", text, "write encode_raw_headers: true", where=where)
    if not at(config, "validate_mutations"):
        text = "headers of an answer are not looked at: a line break in one would split the response"
        yield warning("envoy.validate_mutations", text, "write validate_mutations: true", where=where)
    if at(config, "status_on_error", "code") != "ServiceUnavailable":
        text = "a check that fails is told to clients as 403 or another status, which they do not try again"
        yield warning("envoy.status_on_error", text, "write status_on_error: {code: ServiceUnavailable}", where=where)
    if at(config, "clear_route_cache"):
        text = "clear_route_cache is true: the route that is taken may be another one than the route that was checked"
        yield warning("envoy.clear_route_cache", text, "remove it", where=where)
    if at(config, "with_request_body"):
        text = "with_request_body is set: Envoy waits for bodies that extauthz does not read, and refuses long ones with 413"
        yield warning("envoy.with_request_body", text, "remove it", where=where)


def _mutation(config: Mapping[str, Any], sidecar: Sidecar, where: str) -> Iterator[Finding]:
    name, print_it = "envoy.decoder_header_mutation_rules", "take them from 'extauthz envoy-config --part mutation'"
    rules = at(config, "decoder_header_mutation_rules")
    try:
        if rules == bootstrap.mutation_rules(sidecar):
            return
    except ValueError as error:
        yield problem(name, str(error), "Envoy cannot let them all pass: shorten act_as.headers", where=where)
        return
    if rules is None:
        text = "there are no rules: a fault in an answer could change the path, the host or the framing of a request"
        yield problem(name, text, print_it, where=where)
        return
    expression = str(at(rules, "allow_expression", "regex") or "")
    names = _refused_names(expression, sidecar.identity)
    if names:
        text = f"they do not let extauthz set or remove {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        why = ": such requests get 500" if at(rules, "disallow_is_error") else ": what a client sends under that name stays"
        yield problem(name, text + why, print_it, where=where)
    else:
        yield warning(name, "they are not the ones of this configuration, though all names pass", print_it, where=where)


def _refused_names(expression: str, identity: IdentityHeaders) -> list[str]:
    """Return names that extauthz may set or remove and that an expression does not match as a whole."""
    try:
        matches = re.compile(expression).fullmatch
    except re.error:
        return [f"names by {expression!r}"]
    plain = [*identity.always_listed, identity.prefix, f"{identity.prefix}decision"]
    spelled = [name.replace("-", separator) for name in plain for separator in _SEPARATORS]
    # In their own spelling Envoy itself removes them.
    spelled += [
        name.replace("-", separator) for name in identity.overrides if "-" in name for separator in _SEPARATORS.replace("-", "")
    ]
    return [name for name in dict.fromkeys((*plain, *spelled)) if not matches(name)]


def _service(service: Any, sidecar: Sidecar, where: str) -> Iterator[Finding]:
    if not at(service, "envoy_grpc"):
        text = "Google's gRPC client asks: without health checks, without another try, and without the limits of a cluster"
        yield warning("envoy.grpc_service", text, _PRINT, where=where)
        return
    name = str(at(service, "envoy_grpc", "cluster_name") or "")
    if not at(service, "envoy_grpc", "authority") and not is_plain(name):
        yield warning("envoy.authority", not_plain("a check", name), "write authority: extauthz beside cluster_name", where=where)
    timeout = seconds(at(service, "timeout"), DEFAULT_TIMEOUT)
    if timeout == 0.0:
        yield warning("envoy.timeout", "a check may take for ever", f"write timeout: {sidecar.timeout:g}s", where=where)
    elif timeout <= sidecar.check_timeout:
        own = sidecar.check_timeout
        text = f"Envoy waits {timeout:g} s, and server.check_timeout is {own:g} s: the sidecar's own answer comes too late"
        yield problem("envoy.timeout", text, f"write timeout: {sidecar.timeout:g}s, or shorten check_timeout", where=where)
    yield from _retries(service, timeout, where)


def _retries(service: Any, timeout: float, where: str) -> Iterator[Finding]:
    name, advice = "envoy.retry_policy", _PRINT
    if at(service, "envoy_grpc", "retry_policy"):
        text = "the retry_policy inside `envoy_grpc` does nothing"
        yield warning(name, text, "move it one level up, into `grpc_service`", where=where)
    policy = at(service, "retry_policy")
    if policy is None:
        if not at(service, "envoy_grpc", "retry_policy"):
            yield warning(name, "a check is not tried again at another process when one goes away", advice, where=where)
        return
    base = seconds(at(policy, "retry_back_off", "base_interval"), DEFAULT_BACK_OFF)
    longest = seconds(at(policy, "retry_back_off", "max_interval"), 10 * base)
    if base >= timeout > 0:
        text = f"the wait before another try, {base:g} s, does not fit into the timeout of {timeout:g} s"
        yield warning(name, text, "write retry_back_off: {base_interval: 0.005s, max_interval: …} below it", where=where)
    if longest <= timeout:
        text = f"max_interval is {longest:g} s, and Envoy gives up each try after that, though the timeout is {timeout:g} s"
        yield warning(name, text, f"write a max_interval above {timeout:g}s", where=where)
