"""Ports of tests: no other process of tests gets them, nor does a connection of anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice

import pytest

from tests.support import ports
from tests.support.ports import LAST
from tests.support.project import ROOT

PROGRAM = "from tests.support.ports import free_port; print(*(free_port() for _ in range(20)), flush=True); input()"


@pytest.mark.parametrize("given", [(32_768, 60_999), (15_000, 64_000), (20_000, 65_535), (1_024, 50_000)])
def test_the_system_gives_no_port_of_a_block_to_a_connection(given: tuple[int, int]) -> None:
    found = ports.blocks(given)
    assert len(found) >= 8
    assert {len(block) for block in found} == {ports.BLOCK}
    assert [port for block in found for port in block if not ports.FIRST <= port <= LAST or given[0] <= port <= given[1]] == []


def test_where_the_system_gives_all_of_them_the_blocks_are_of_all() -> None:
    assert len(ports.blocks((1_024, 65_535))) == (LAST - ports.FIRST + 1) // ports.BLOCK


def test_a_block_belongs_to_one_process_until_its_end() -> None:
    """Each begins with the same block."""
    first, second = range(LAST + 2 * os.getpid(), 0), range(LAST + 2 * os.getpid() + 1, 0)
    assert [ports.claimed([first, second], 1), ports.claimed([first, second], 1)] == [second, first]
    with pytest.raises(RuntimeError, match="all 2 blocks"):
        ports.claimed([first, second], 1)


def test_processes_have_different_ports() -> None:
    begun = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    taken = [port for process in begun for port in map(int, str(process.stdout and process.stdout.readline()).split())]
    for process in begun:
        process.communicate("\n", timeout=60)
    taken += islice(iter(ports.free_port, 0), 20)
    assert len(taken) == len(set(taken)) == 100
