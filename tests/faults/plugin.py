"""Writes down what the tests of `make faults` have measured, whether they passed or not."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.faults import results, trial

_entries: list[dict[str, Any]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what a test tells at its end, in the process that all of them report to."""
    if report.when == "call":
        _entries.extend(value for name, value in report.user_properties if name == "fault")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write results.yaml."""
    if _entries and not hasattr(session.config, "workerinput"):
        machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {sys.version.split()[0]}"
        results.save(_entries, trial.rows(), measured=f"{datetime.now(UTC):%Y-%m-%d}, {machine}")
