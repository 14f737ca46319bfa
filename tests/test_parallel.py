"""Pictures at the same time: in order, on as many cores as torch has threads, errors passed on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from nvc.machine.parallel import SMALL, each, shares


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_large_pictures_are_shared_among_the_threads_in_order() -> None:
    assert shares([1, 2, 3, 4, 5], SMALL + 1) == [[1, 2], [3, 4, 5]]
    assert shares([1], SMALL + 1) == [[1]]


@pytest.mark.usefixtures("two_threads")
def test_small_pictures_stay_together() -> None:
    assert shares([1, 2, 3, 4, 5], SMALL) == [[1, 2, 3, 4, 5]]


@pytest.mark.usefixtures("two_threads")
def test_two_run_at_the_same_time_with_a_core_each() -> None:
    met = threading.Barrier(2, timeout=20)

    def work(item: int) -> tuple[int, int]:
        met.wait()                              # ends only when the other is here too
        return item, torch.get_num_threads()

    assert each(work, [7, 8]) == [(7, 1), (8, 1)]
    assert torch.get_num_threads() == 2         # of the caller, as before


@pytest.mark.usefixtures("two_threads")
def test_a_single_one_has_all_cores() -> None:
    assert each(lambda item: (item, torch.get_num_threads()), [7]) == [(7, 2)]


@pytest.mark.usefixtures("two_threads")
def test_the_first_error_passes_after_all_have_ended() -> None:
    ended = []

    def work(item: int) -> None:
        if item != 2:
            raise ValueError(str(item))
        ended.append(item)

    with pytest.raises(ValueError, match="1"):
        each(work, [1, 2, 3])
    assert ended == [2]
