"""What is read from the running parts at each scrape."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from math import nan
from time import monotonic

from extauthz import __version__
from extauthz.config.loader import Configuration
from extauthz.process.standard_streams import dropped_lines
from extauthz.runtime.build import RuntimeParts
from extauthz.service import Authorizer
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.telemetry.last_used import LastUsedTimes
from extauthz.telemetry.metric_table import Samples
from extauthz.transport.select import Server
from extauthz.verifiers.change_feed import Feed
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.oauth import OAuthVerifier

LOOK = 0.1
"""Seconds between two looks at how late the event loop is."""


class LoopLag:
    """How late the event loop was for a timer; to take the figure begins anew."""

    def __init__(self) -> None:
        """Begin with none."""
        self._longest = 0.0

    def take(self) -> float:
        """Return the longest delay since the last call, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            before = monotonic()
            await asyncio.sleep(LOOK)
            self._longest = max(self._longest, monotonic() - before - LOOK)


def of_parts(parts: RuntimeParts) -> Samples:
    """Read what belongs to a snapshot: memories, keys, questions and budgets."""
    samples: Samples = {}
    shed: Counter[str] = Counter()
    for kind, cache in parts.verdicts.items():
        for outcome, count in (("hit", cache.hits), ("refusal", cache.refusals), ("miss", cache.misses)):
            samples["extauthz_verdict_lookups_total", (kind.value, outcome)] = float(count)
        samples["extauthz_verdicts", (kind.value,)] = float(len(cache))
        samples["extauthz_verdict_evictions_total", (kind.value,)] = float(cache.evictions)
    for source in parts.key_sources:
        samples["extauthz_keys", (source.issuer,)] = float(len(source.keys() or ()))
        samples["extauthz_keys_age_seconds", (source.issuer,)] = source.age
        for result, count in source.outcomes.items():
            samples["extauthz_key_fetches_total", (source.issuer, result)] = float(count)
    for introspection in parts.introspections:
        labels = (introspection.issuer, introspection.method.value)
        for outcome, count in introspection.outcomes.items():
            samples["extauthz_remote_verifications_total", (*labels, outcome)] = float(count)
        samples["extauthz_remote_verification_seconds_total", labels] = introspection.seconds
        shed["remote"] += introspection.outcomes["shed"]
    for verifier in parts.runtime.verifiers.values():
        match verifier:
            case IssuedVerifier():
                shed["store"] += verifier.shed
                samples["extauthz_unknown_ids_total", ()] = float(verifier.unknown)
                for outcome, count in verifier.queries.items():
                    samples["extauthz_store_queries_total", (outcome,)] = float(count)
            case OAuthVerifier():
                shed["signatures"] += verifier.shed
    samples |= {("extauthz_checks_shed_total", (cause,)): float(count) for cause, count in shed.items()}
    if parts.internal_tokens is not None:
        samples["extauthz_internal_tokens_signed_total", ()] = float(parts.internal_tokens.signed)
        samples["extauthz_internal_tokens", ()] = float(parts.internal_tokens.remembered)
    return samples


def of_issuers(parts: RuntimeParts) -> Iterator[Condition]:
    """Yield whether the keys of each issuer, and each remote verification, are in order."""
    for source in parts.key_sources:
        yield Condition(ConditionKey.ISSUER_KEYS, source.keys() is not None, source.issuer)
        yield Condition(ConditionKey.ISSUER_KEYS_CURRENT, not source.is_behind, source.issuer)
    for remote in parts.introspections:
        yield Condition(ConditionKey(f"issuer_{remote.method}"), remote.answers, remote.issuer)


def of_process(
    configuration: Configuration, parts: RuntimeParts, authorizer: Authorizer, lag: LoopLag, uses: LastUsedTimes | None
) -> Samples:
    """Read what outlives a snapshot."""
    samples: Samples = {
        ("extauthz_checks_in_flight", ()): float(authorizer.in_flight),
        ("extauthz_checks_shed_total", ("max_in_flight",)): float(authorizer.shed),
        ("extauthz_event_loop_lag_seconds", ()): lag.take(),
        ("extauthz_process_log_dropped_total", ()): float(dropped_lines()),
        ("extauthz_monitor_mode", ()): float(bool(configuration.policy.monitored)),
    }
    tokens = configuration.settings.tokens
    if parts.feed is not None and tokens is not None:
        samples |= _of_feed(parts.feed, tokens.max_staleness)
    if uses is not None:
        samples["extauthz_token_uses_waiting", ()] = float(uses.waiting)
        samples["extauthz_token_uses_written_total", ()] = float(uses.written)
        samples["extauthz_token_uses_dropped_total", ()] = float(uses.dropped)
    return samples


def of_transport(server: Server, name: str) -> Samples:
    """Read which transport serves, and what never became a check."""
    samples: Samples = {("extauthz_build_info", (__version__, name)): 1.0}
    for reason, count in server.refusals.items():
        samples["extauthz_transport_refusals_total", (reason.value,)] = float(count)
    return samples


def _of_feed(feed: Feed, max_staleness: float) -> Samples:
    samples: Samples = {
        ("extauthz_feed_age_seconds", ()): feed.age,
        ("extauthz_feed_rewound", ()): float(feed.rewound),
        ("extauthz_known_ids", ()): float(feed.ids.count),
        ("extauthz_known_ids_complete", ()): float(feed.ids.complete),
        ("extauthz_store_stale", ()): float(feed.age >= max_staleness > 0),
        ("extauthz_audit_position", ()): float(feed.audit[0]) if feed.audit else nan,
    }
    if feed.audit:
        samples["extauthz_audit_head_info", (str(feed.audit[0]), feed.audit[1])] = 1.0
    return samples
