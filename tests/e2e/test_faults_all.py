"""Every fault in every phase, with every kind of request, run by `make faults`, which writes down what was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import trial
from tests.faults.injector import INJECTORS
from tests.faults.installation import installation
from tests.faults.results import entry
from tests.faults.table import Database, Row
from tests.support.postgres_server import server_of

pytestmark = pytest.mark.faults

CASES = [pytest.param(row, database, id=f"{row.id}-{database}") for row in trial.rows() for database in row.databases]


@pytest.mark.parametrize(("row", "database"), CASES)
def test_a_row(row: Row, database: Database, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]) -> None:
    errors: dict[str, list[str]] = {}
    injector = INJECTORS[row.inject]
    with installation(database, injector.needs, lambda: server_of(pytestconfig)) as it:
        for number, phase in enumerate(row.phases):
            if number and injector.leaves_trace:
                it.restart()
            try:
                found = trial.run(it, row, phase)
            except AssertionError as error:  # why: every phase is tried, and all their errors are asserted below
                found = trial.Trial(row, database, phase, errors=[str(error)[:500]])
            record_property("fault", entry(found))
            if found.errors:
                errors[found.name] = found.errors
                # Whatever it is in by now, the next phase begins with a process that serves.
                it.restart()
    assert errors == {}
