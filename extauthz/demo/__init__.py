"""A whole deployment on one machine: issuer, upstream, sidecar and a real Envoy."""
