"""What the console needs of a sidecar's metrics, read by two expressions: a parser of everything takes a hundred times as long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

CHECKS = "extauthz_checks_total"

INFOS = ("extauthz_build_info", "extauthz_config_info")
GAUGES = (
    "extauthz_audit_position",
    "extauthz_config_stale",
    "extauthz_feed_age_seconds",
    "extauthz_feed_rewound",
    "extauthz_keys",
    "extauthz_keys_age_seconds",
    "extauthz_monitor_mode",
    "extauthz_ready",
    "extauthz_settings_version",
    "extauthz_store_stale",
    "process_start_time_seconds",
)

# The client library sorts labels by their names, and escapes what ends a value or a line.
_VALUE = r'"((?:[^"\\\n]|\\.)*)"'
_CHECK = re.compile(
    rf"^{CHECKS}\{{auth_type={_VALUE},decision={_VALUE},reason={_VALUE},route={_VALUE}\}} ([0-9.e+-]+)$", re.MULTILINE
)
_SAMPLE = re.compile(rf"^({'|'.join((*INFOS, *GAUGES))})(?:\{{(.*)\}})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(rf"([a-z_]+)={_VALUE}(?:,|\Z)")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}

Check = tuple[str, str, str]
"""Decision, reason and route of checks that are counted together."""
Sample = tuple[str, Mapping[str, str], float]
"""The name of a metric, its labels, and its value."""


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """The keys that a sidecar has of an issuer, and the seconds since they came; None when they never did."""

    count: int
    age: float | None


@dataclass(frozen=True, slots=True)
class SidecarFacts:
    """What a sidecar says of itself, None where it does not.

    `started_at` is in seconds since the epoch, ages are in seconds. What rows of the audit up to `audit_position` tell, it knows.
    """

    version: str | None = None
    config_hash: str | None = None
    is_config_stale: bool | None = None
    settings_version: int | None = None
    audit_position: int | None = None
    is_ready: bool | None = None
    is_monitoring: bool | None = None
    feed_age: float | None = None
    is_rewound: bool = False
    is_store_stale: bool = False
    keys: Mapping[str, IssuerKeys] = field(default_factory=dict)
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Scrape:
    """The counters of a sidecar at a moment, whatever the kind of token, and what it says of itself."""

    checks: Mapping[Check, float]
    facts: SidecarFacts


def read_metrics(text: str) -> Scrape:
    """Read the metrics page of a sidecar; raise ValueError for what is none."""
    checks: dict[Check, float] = {}
    found = 0
    for _, decision, reason, route, value in _CHECK.findall(text):
        key = decision, reason, _plain(route)
        checks[key] = checks.get(key, 0.0) + float(value)
        found += 1
    if found != len(re.findall(rf"^{CHECKS}\{{", text, re.MULTILINE)):
        raise ValueError(f"{CHECKS} is not written as a sidecar writes it")
    facts = facts_of(_samples(text))
    if facts.version is None:
        raise ValueError("no metrics of a sidecar: is this the address of an ops listener?")
    return Scrape(checks, facts)


def facts_of(samples: Iterable[Sample]) -> SidecarFacts:
    """Return what the samples of one sidecar say; of what is not a number they say nothing."""
    by_name: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for name, labels, value in samples:
        by_name.setdefault(name, []).append((labels, value))

    def number(name: str) -> float | None:
        value = by_name.get(name, [({}, None)])[0][1]
        return value if value is not None and value == value else None

    def flag(name: str) -> bool | None:
        value = number(name)
        return None if value is None else value > 0

    def label(name: str, key: str) -> str | None:
        return by_name.get(name, [({}, 0.0)])[0][0].get(key)

    ages = {labels.get("issuer", ""): age for labels, age in by_name.get("extauthz_keys_age_seconds", ())}
    keys = {labels.get("issuer", ""): count for labels, count in by_name.get("extauthz_keys", ())}

    def whole(name: str) -> int | None:
        value = number(name)
        return None if value is None else _whole(value)

    return SidecarFacts(
        version=label("extauthz_build_info", "version"),
        config_hash=label("extauthz_config_info", "hash"),
        is_config_stale=flag("extauthz_config_stale"),
        settings_version=whole("extauthz_settings_version"),
        audit_position=whole("extauthz_audit_position"),
        is_ready=flag("extauthz_ready"),
        is_monitoring=flag("extauthz_monitor_mode"),
        feed_age=number("extauthz_feed_age_seconds"),
        is_rewound=bool(flag("extauthz_feed_rewound")),
        is_store_stale=bool(flag("extauthz_store_stale")),
        keys={issuer: IssuerKeys(_whole(count), _known(ages.get(issuer))) for issuer, count in sorted(keys.items())},
        started_at=number("process_start_time_seconds"),
    )


def _samples(text: str) -> Iterator[Sample]:
    for name, labels, value in _SAMPLE.findall(text):
        yield name, {key: _plain(written) for key, written in _LABEL.findall(labels)}, float(value)


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[0]), text) if "\\" in text else text


def _known(value: float | None) -> float | None:
    return value if value is not None and value == value else None


def _whole(value: float) -> int:
    return int(value) if value == value and abs(value) < 2**53 else 0
