"""One deployment for the tests that do no harm, a fresh one for those that kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers that nobody harms."""
    with Deployment(tmp_path_factory.mktemp("shared"), 2) as made:
        yield made


@pytest.fixture
def service(shared: Deployment) -> Deployment:
    """The shared deployment, with every worker ready."""
    shared.gate.unlink(missing_ok=True)
    shared.wait_ready()
    return shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
