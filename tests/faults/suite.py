"""What the tests of the table share: the cells of a module's injectors, and the installations that they are tried on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType

import pytest

from tests.faults import trial
from tests.faults.injector import INJECTORS
from tests.faults.installation import Installation, Needs, installation
from tests.faults.table import Database, Phase, Row
from tests.support.postgres_server import PostgresServer, server_of

HOLD = 0.3
"""Seconds that a fault lasts in `make test-long`."""
STOCK = 300
"""New tokens that there are for each."""


def cells(module: ModuleType) -> pytest.MarkDecorator:
    """Return the cells that `make test-long` runs of the rows whose faults a module makes."""
    rows = [row for row in trial.rows() if INJECTORS[row.inject].module == module.__name__]
    found = [pytest.param(row, database, id=f"{row.id}-{database}") for row in rows for database in row.suite_databases]
    return pytest.mark.parametrize(("row", "database"), found)


@dataclass
class Installations:
    """One installation for all faults with the same needs, begun anew where one has left a trace."""

    server: Callable[[], PostgresServer]
    stack: contextlib.ExitStack
    running: dict[tuple[Database, Needs], Installation] = field(default_factory=dict)
    traced: set[tuple[Database, Needs]] = field(default_factory=set)

    def of(self, row: Row, database: Database) -> Installation:
        """Return one that serves."""
        injector = INJECTORS[row.inject]
        # Less happens here, so that what asks for an installation of its own may share one.
        needs = replace(injector.needs, alone=False)
        key = database, needs
        if key not in self.running:
            self.running[key] = self.stack.enter_context(installation(database, needs, self.server, stock=STOCK))
            self.running[key].quick = True
        elif key in self.traced and row.in_suite.phase is not Phase.BEFORE_START:
            self.running[key].restart()
        self.traced.discard(key)
        if injector.leaves_trace:
            self.traced.add(key)
        return self.running[key]


@pytest.fixture(scope="module")
def installations(pytestconfig: pytest.Config) -> Iterator[Installations]:
    """Nothing is left of them behind the last test of the module."""
    with contextlib.ExitStack() as stack:
        yield Installations(lambda: server_of(pytestconfig), stack)


def try_cell(installations: Installations, row: Row, database: Database) -> None:
    """Run the cell that a row names for `make test-long`."""
    it = installations.of(row, database)
    found = trial.run(it, row, row.in_suite.phase, [row.in_suite.kind], hold=HOLD)
    assert found.errors == [], f"{found.errors}\n{it.said()[-3000:]}"
