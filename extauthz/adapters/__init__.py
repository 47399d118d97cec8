"""How does the outside world answer?

One library, one module or room: protobuf in `envoy`, prometheus_client in `metrics`, structlog in `process_log`, the HTTP client in
`oauth/`, SQLAlchemy and psycopg in `store/`, OpenTelemetry in `tracing/`, files and pipes in `decision_log/`.
"""
