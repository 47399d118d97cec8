"""The decision: pure functions over values; no I/O, clock, randomness or protobuf."""
