"""The series that Prometheus finds at a sidecar, with their labels: what dashboards and alerts may ask for."""

from __future__ import annotations

from extauthz.telemetry.metric_table import TABLE, Definition, Type

OF_THE_CLIENT: dict[str, tuple[str, ...]] = {
    "process_cpu_seconds_total": (),
    "process_resident_memory_bytes": (),
    "process_open_fds": (),
    "process_max_fds": (),
    "python_gc_collections_total": ("generation",),
}
OF_PROMETHEUS: dict[str, tuple[str, ...]] = {"up": (), "ALERTS": ("alertname", "alertstate")}


def _series(definition: Definition) -> dict[str, tuple[str, ...]]:
    if definition.type is not Type.HISTOGRAM:
        return {definition.name: definition.labels}
    name, labels = definition.name, definition.labels
    return {f"{name}_bucket": (*labels, "le"), f"{name}_sum": labels, f"{name}_count": labels}


LABELS: dict[str, tuple[str, ...]] = (
    {name: labels for definition in TABLE.values() for name, labels in _series(definition).items()} | OF_THE_CLIENT | OF_PROMETHEUS
)

OF_THE_TARGET = ("job", "instance")
"""Labels that Prometheus adds to every series."""
