"""Three storms of 200 experiments each: `make soak` goes on with other seeds for as long as one likes."""

from __future__ import annotations

import pytest
from storm import weather


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_doubled_or_hidden_in_a_storm(seed: int) -> None:
    verdict = weather(seed)
    print(*verdict.lines(), sep="\n")
    assert verdict.complaints == []
    assert (verdict.submitted, verdict.acknowledged) == (200, 200)
    assert verdict.completed + verdict.failed + verdict.cancelled == 200
    assert verdict.completed > 100
    assert verdict.orphans == 0
