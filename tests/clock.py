"""A clock that stands still until a test sets it, and a store that goes by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.store import Store


class Clock:
    """Seconds; Unix seconds where such are wanted."""

    def __init__(self, now: float = 1_760_728_570.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store(tmp_path / "state", clock=clock)
    yield opened
    opened.close()
