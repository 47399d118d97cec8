"""Compares the compiled reader with protobuf for as long as is asked: `python -m tests.fuzz_reader SECONDS`, run by `make fuzz`."""

from __future__ import annotations

import sys
import time

from extauthz.adapters.envoy import _reader
from extauthz.adapters.envoy.codec import read_by_protobuf
from tests.support.wire_messages import Wire


def main(seconds: float) -> int:
    """Print how many messages were compared; return 1 at the first difference, with the message in hex."""
    seed = time.time_ns()
    wire, deadline = Wire(seed), time.monotonic() + seconds
    made = answered = 0
    while time.monotonic() < deadline:
        for _ in range(1000):
            data = wire.message()
            made += 1
            usual = _reader.read(data)
            if usual is None:
                continue
            answered += 1
            expected = read_by_protobuf(data)
            if usual != expected:
                sys.stdout.write(f"different, seed {seed}:\n{data.hex()}\n{usual}\n{expected}\n")
                return 1
    sys.stdout.write(f"{made:,} messages, {answered / made:.0%} answered without protobuf, no difference (seed {seed})\n")
    return 0 if answered >= 0.3 * made else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
