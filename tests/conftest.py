"""Fixtures for every test. How hypothesis runs here: the same cases every time, never against the clock; `make fuzz`
tries new ones."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.browser.firefox import FIREFOX

pytest_plugins = ["tests.clock", "tests.orchestrator_rig", "tests.slot_rig", "tests.worker_rig"]

settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_CASES", "20000")),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIREFOX:
        terminalreporter.write_line("tests/browser was left out: Firefox is not installed here")
