"""No two decisions have one id, whatever becomes of the process that draws them."""

from __future__ import annotations

import os
import re

from extauthz.serve.decision_ids import BLOCK, DecisionIds


def test_ids_are_128_bits_in_hex_and_each_is_another_one() -> None:
    ids = DecisionIds()
    drawn = [ids() for _ in range(3 * BLOCK // 16 + 1)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in drawn)
    assert len(set(drawn)) == len(drawn)


def test_a_process_that_is_forked_draws_its_own() -> None:
    ids = DecisionIds()
    ids()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, " ".join(ids() for _ in range(100)).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        of_the_child = pipe.read().split(" ")
    assert len(of_the_child) == 100
    assert not {*of_the_child} & {ids() for _ in range(100)}
