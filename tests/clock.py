"""A clock that stands still until a test sets it."""

from __future__ import annotations

import pytest


class Clock:
    """Seconds; Unix seconds where such are wanted."""

    def __init__(self, now: float = 1_760_728_570.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
