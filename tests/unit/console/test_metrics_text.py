"""What the console reads of a sidecar's metrics is what the parser of the client library reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from extauthz.adapters.metrics import render
from extauthz.console.metrics_text import IssuerKeys, Scrape, read_metrics
from extauthz.core.model import AuthType, Reason
from extauthz.telemetry.metric_table import Samples

BUILD = {("extauthz_build_info", ("1.2.3", "nghttp2")): 1.0}


def page(samples: Samples) -> str:
    """Return the page that a sidecar renders."""
    return render(BUILD | samples)[1].decode()


def parsed(text: str) -> dict[tuple[str, str, str], float]:
    """Return the counters of checks as the client library reads them, whatever the kind of token."""
    checks: dict[tuple[str, str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "extauthz_checks_total":
                key = (sample.labels["decision"], sample.labels["reason"], sample.labels["route"])
                checks[key] = checks.get(key, 0.0) + sample.value
    return checks


ROUTES = st.text(st.one_of(st.sampled_from('\\"{}=, \nné<'), st.characters(codec="utf-8")), max_size=12)
CHECKS = st.dictionaries(
    st.tuples(
        st.just("extauthz_checks_total"),
        st.tuples(
            st.sampled_from(("allow", "deny", "would_deny")),
            st.sampled_from([reason.value for reason in Reason]),
            ROUTES,
            st.sampled_from((*AuthType, "none")),
        ),
    ),
    st.floats(0, 1e18),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(CHECKS)
@example({("extauthz_checks_total", ("allow", "allowed", 'GET /"\\n"}', "USER")): 1e16})
@example({("extauthz_checks_total", ("allow", "allowed", "a", kind)): 1.0 for kind in ("USER", "OAUTH")})
def test_counters_are_read_as_the_client_library_reads_them(samples: Samples) -> None:
    text = page(samples)

    assert read_metrics(text).checks == parsed(text)


def test_what_a_sidecar_says_of_itself() -> None:
    samples: Samples = {
        ("extauthz_config_info", ("5eed",)): 1.0,
        ("extauthz_config_stale", ()): 1.0,
        ("extauthz_ready", ()): 0.0,
        ("extauthz_feed_age_seconds", ()): 2.5,
        ("extauthz_feed_rewound", ()): 1.0,
        ("extauthz_store_stale", ()): 0.0,
        ("extauthz_keys", ("https://a.example",)): 2.0,
        ("extauthz_keys", ('b"',)): 0.0,
        ("extauthz_keys_age_seconds", ("https://a.example",)): 61.0,
        ("extauthz_keys_age_seconds", ('b"',)): math.nan,
    }
    facts = read_metrics(page(samples)).facts

    assert (facts.version, facts.config_hash, facts.is_config_stale, facts.is_ready) == ("1.2.3", "5eed", True, False)
    assert (facts.feed_age, facts.is_rewound, facts.is_store_stale) == (2.5, True, False)
    assert facts.keys == {"https://a.example": IssuerKeys(2, 61.0), 'b"': IssuerKeys(0, None)}
    assert (facts.settings_version, facts.is_monitoring) == (None, None)
    assert facts.started_at is not None, "the start of a process tells counters of another one"


@pytest.mark.parametrize(("settings_version", "expected"), [("7.0", 7), ("NaN", None), ("+Inf", 0), ("1e+300", 0)])
def test_the_version_of_settings(settings_version: str, expected: int | None) -> None:
    text = page({}) + f"extauthz_settings_version {settings_version}\n"

    assert read_metrics(text).facts.settings_version == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not here</html>",
        "up 1.0\n",
        page({}) + 'extauthz_checks_total{decision="deny",reason="r",route="x",auth_type="none"} 1.0\n',
        page({}) + 'extauthz_checks_total{auth_type="none",decision="deny",reason="r",route="x"} NaN\n',
        page({}) + 'extauthz_checks_total{auth_type="none",decision="deny",reason="r",route="x"} 1..0\n',
        page({}) + "extauthz_ready yes\n",
    ],
)
def test_what_no_sidecar_writes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"sidecar|float"):
        read_metrics(text)


def test_a_page_without_checks() -> None:
    found = read_metrics(page({}))

    assert isinstance(found, Scrape)
    assert found.checks == {}
