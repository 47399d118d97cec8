"""What several tests need: a world in memory, and messages as Envoy writes them."""
