"""A worker's slots that follow a cluster: more, fewer, and none of those at work is cut short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slot_rig import CODECS, PATIENCE_S, Job

from service.processes.supervision import ProcessSpec
from service.runs.slot_pool import SlotPool
from tests.system.deployment import until_true


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    made = SlotPool(ProcessSpec(warm=("raw",), codecs=CODECS), 1, lambda: None, lambda event, **fields: None)
    made.start()
    yield made
    made.close()


def states(pool: SlotPool) -> list[str]:
    return [slot.state for slot in pool]


def test_it_grows_and_shrinks(pool: SlotPool) -> None:
    pool.resize(2)
    assert until_true(lambda: states(pool) == ["ready", "ready"], PATIENCE_S)
    pool.resize(0, "gone")
    assert (len(pool), pool.trouble) == (0, "gone")
    pool.resize(1)
    assert until_true(lambda: states(pool) == ["ready"], PATIENCE_S)
    assert pool.trouble == ""


def test_a_slot_at_work_ends_its_run_first(pool: SlotPool, folder: Path) -> None:
    assert until_true(lambda: states(pool) == ["ready"], PATIENCE_S)
    job = Job(folder, "sleep-0.5")
    assert pool[0].offer(job)
    assert until_true(lambda: states(pool) == ["busy"], PATIENCE_S)
    pool.resize(0)
    assert states(pool) == ["busy"]
    assert job.wait().state == "completed"
    assert until_true(lambda: len(pool) == 0, PATIENCE_S)


def test_a_run_of_a_slot_that_has_not_come_up_is_handed_back(folder: Path) -> None:
    pool = SlotPool(ProcessSpec(warm=("raw",), codecs=CODECS), 1, lambda: None, lambda event, **fields: None)
    job = Job(folder)
    pool.start()
    assert pool[0].offer(job)
    pool.resize(0)
    outcome = job.wait()
    assert outcome.error is None or outcome.error["type"] == "handed-back"
    assert until_true(lambda: len(pool) == 0, PATIENCE_S)
