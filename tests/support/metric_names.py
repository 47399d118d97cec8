"""The metrics that a sidecar has, with their labels: what dashboards and alerts may ask for."""

from __future__ import annotations

CHECKS = ("decision", "reason", "route", "auth_type")

LABELS: dict[str, tuple[str, ...]] = {
    "extauthz_checks_total": CHECKS,
    "extauthz_check_duration_seconds_bucket": ("decision", "le"),
    "extauthz_check_duration_seconds_sum": ("decision",),
    "extauthz_check_duration_seconds_count": ("decision",),
    "extauthz_checks_in_flight": (),
    "extauthz_checks_shed_total": ("cause",),
    "extauthz_verdict_lookups_total": ("kind", "outcome"),
    "extauthz_verdicts": ("kind",),
    "extauthz_verdict_evictions_total": ("kind",),
    "extauthz_token_verification_failures_total": ("kind", "cause"),
    "extauthz_keys": ("issuer",),
    "extauthz_keys_age_seconds": ("issuer",),
    "extauthz_key_fetches_total": ("issuer", "result"),
    "extauthz_remote_verifications_total": ("issuer", "method", "outcome"),
    "extauthz_remote_verification_seconds_total": ("issuer", "method"),
    "extauthz_store_queries_total": ("outcome",),
    "extauthz_feed_age_seconds": (),
    "extauthz_feed_rewound": (),
    "extauthz_store_stale": (),
    "extauthz_audit_position": (),
    "extauthz_audit_head_info": ("number", "mac"),
    "extauthz_token_uses_waiting": (),
    "extauthz_token_uses_written_total": (),
    "extauthz_token_uses_dropped_total": (),
    "extauthz_config_reloads_total": ("result",),
    "extauthz_config_last_reload_success_timestamp_seconds": (),
    "extauthz_config_stale": (),
    "extauthz_config_info": ("hash",),
    "extauthz_tls_certificate_expiry_timestamp_seconds": (),
    "extauthz_event_loop_lag_seconds": (),
    "extauthz_build_info": ("version", "transport"),
    "extauthz_ready": (),
    "extauthz_monitor_mode": (),
    "extauthz_worker_up": ("worker",),
    "extauthz_worker_restarts_total": ("worker",),
    "extauthz_decision_log_dropped_total": (),
    "extauthz_decision_log_written_total": (),
    # Of the Prometheus client.
    "process_cpu_seconds_total": (),
    "process_resident_memory_bytes": (),
    "process_open_fds": (),
    "process_max_fds": (),
    "python_gc_collections_total": ("generation",),
    # Of Prometheus itself.
    "up": (),
    "ALERTS": ("alertname", "alertstate"),
}
"""Every name as it stands in queries, so histograms by their three series."""

OF_THE_TARGET = ("job", "instance")
"""Labels that Prometheus adds to every series."""
