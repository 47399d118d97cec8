"""The worst day: faults under load through a real Envoy, what must be seen of each, and what was."""
