"""Faults of the issuer under load through a real Envoy: a cell of each row of faults/faults.yaml."""

from __future__ import annotations

import pytest

from tests.faults import issuer_faults
from tests.faults.suite import Installations, cells, installations, try_cell
from tests.faults.table import Database, Row

__all__ = ["installations"]

pytestmark = [pytest.mark.envoy, pytest.mark.long]


@cells(issuer_faults)
def test_a_cell(installations: Installations, row: Row, database: Database) -> None:
    try_cell(installations, row, database)
