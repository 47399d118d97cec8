"""Spans of checks by OpenTelemetry, the only room of it; imported when `tracing.endpoint` is set, and not at all otherwise."""
