"""A slot: its codec process is warm, is replaced when it dies, and goes when it must, whatever the codec does."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slot_rig import CODECS, PATIENCE_S, Job, Watched, alive

from service.processes.supervision import ProcessSpec
from service.runs.outcome import Outcome, how_it_died, last_words

ROOT = Path(__file__).resolve().parent.parent


def group_members(group: int) -> set[int]:
    """The processes of a group that still run (zombies have ended)."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # ended while we looked
        if int(number) == group and state != "Z":
            found.add(int(entry.name))
    return found


def test_an_honest_run_completes_and_says_how_far_it_is(watched: Watched, folder: Path) -> None:
    job = Job(folder)
    outcome = watched.run(job)
    assert outcome.state == "completed"
    assert outcome.result is not None
    assert outcome.result["clip"]["frames"] == 4
    assert set(outcome.artifacts) == {"stream.scripted", "reconstruction.mkv"}
    assert job.phases[0] == "encode"
    assert job.phases[-1] == "decode"


def test_a_second_task_is_not_taken_while_one_runs(watched: Watched, folder: Path) -> None:
    job = Job(folder, "deaf")
    watched.wait_ready()
    assert watched.slot.offer(job)
    assert not watched.slot.offer(Job(folder))
    watched.slot.end(job, Outcome("cancelled"))
    job.wait()


@pytest.mark.parametrize(
    ("script", "slug", "retry", "words"),
    [
        ("segfault", "codec-crashed", True, "SIGSEGV"),
        ("exit", "codec-crashed", True, "exit status 3"),
        ("killed", "out-of-memory", True, "SIGKILL"),
        ("memory", "out-of-memory", True, "8 EiB"),
        ("disk-full", "disk-full", True, "No space left"),
        ("refuse", "bad-settings", False, "quality: 32 is not to my taste"),
        ("bug", "codec-error", False, "ZeroDivisionError: division by zero (standin.py:"),
        ("wrong-size", "wrong-output", False, "plane y is (16, 30), expected (16, 32)"),
        ("wrong-kind", "wrong-output", False, "plane y is float32, expected uint8"),
        ("wrong-count", "wrong-output", False, "the decoder gave 3 pictures, the clip has 4"),
        ("wrong-many", "wrong-output", False, "the decoder gave more than the clip's 4 pictures"),
        ("wrong-info", "wrong-output", False, "the decoder gave 34×16, the clip is 32×16"),
        ("wrong-nothing", "wrong-output", False, "the encoder gave no bytes, expected bytes (at least one)"),
        ("remember", "codec-error", False, "nothing is remembered here"),
        ("decoder-segfault", "decoder-crashed", True, "SIGSEGV"),
    ],
)
def test_a_failure_says_whose_fault_it_was(
    watched: Watched, folder: Path, script: str, slug: str, retry: bool, words: str
) -> None:
    outcome = watched.run(Job(folder, script))
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["retry"]) == (slug, retry)
    assert words in outcome.error["detail"]


def test_after_every_kind_of_failure_the_slot_works_again(watched: Watched, folder: Path) -> None:
    assert watched.run(Job(folder)).state == "completed"


@pytest.mark.parametrize("script", ["deaf", "chatter", "children"])
def test_cancel_leaves_no_process_of_the_group(watched: Watched, folder: Path, script: str) -> None:
    job = Job(folder, script)
    watched.wait_ready()
    group = watched.slot.pid
    assert group is not None
    watched.slot.offer(job)
    assert job.heard.wait(PATIENCE_S)
    family = watched.family()
    assert watched.slot.end(job, Outcome("cancelled"))
    assert job.wait().state == "cancelled"
    until = time.monotonic() + PATIENCE_S   # killed with its leader, but each member ends by itself
    while time.monotonic() < until and (group_members(group) or any(alive(*member) for member in family.items())):
        time.sleep(0.01)
    assert group_members(group) == set()
    assert [member for member, born in family.items() if alive(member, born)] == []


def test_a_codec_that_holds_the_interpreter_is_cancelled_too(watched: Watched, folder: Path) -> None:
    job = Job(folder, "spin-600")
    watched.wait_ready()
    group = watched.slot.pid
    watched.slot.offer(job)
    watched.wait_for(lambda: watched.slot.state == "busy")
    watched.slot.end(job, Outcome("cancelled"))
    assert job.wait().state == "cancelled"
    assert group is not None
    assert group_members(group) == set()


@pytest.mark.parametrize("script", ["deaf", "chatter", "decoder-hang"])
def test_a_run_past_its_deadline_is_killed_and_fails(watched: Watched, folder: Path, script: str) -> None:
    outcome = watched.run(Job(folder, script, timeout_s=0.3))
    assert outcome.error == {"type": "timeout", "detail": "timeout_s: the run was killed after 0.3 s", "retry": False}


def test_a_task_that_has_ended_cannot_be_ended_again(watched: Watched, folder: Path) -> None:
    job = Job(folder)
    watched.run(job)
    watched.wait_ready()
    assert not watched.slot.end(job, Outcome("cancelled"))


def test_a_process_that_dies_idle_is_replaced(watched: Watched, folder: Path) -> None:
    watched.wait_ready()
    old = watched.slot.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    watched.wait_for(lambda: watched.slot.state == "ready" and watched.slot.pid not in (None, old))
    assert watched.run(Job(folder)).state == "completed"


def test_a_task_offered_while_the_process_starts_waits_and_can_be_cancelled(folder: Path) -> None:
    watched = Watched(ProcessSpec(warm=("raw",), codecs=CODECS))
    job = Job(folder)
    assert watched.slot.offer(job)
    assert watched.slot.end(job, Outcome("cancelled"))
    watched.slot.start()
    assert job.wait().state == "cancelled"
    watched.slot.close(PATIENCE_S)


def test_a_codec_that_cannot_be_loaded_fails_the_slot_with_its_reason() -> None:
    watched = Watched(ProcessSpec(warm=("missing",), codecs=("missing=no_such_module:Codec",)))
    watched.slot.start()
    watched.wait_for(lambda: watched.slot.state == "failed")
    assert "no_such_module" in watched.slot.reason
    assert not watched.slot.free
    watched.slot.close(PATIENCE_S)


def test_closing_hands_the_run_back_and_leaves_nothing(folder: Path) -> None:
    watched = Watched(ProcessSpec(warm=("raw",), codecs=CODECS))
    watched.slot.start()
    watched.wait_ready()
    group = watched.slot.pid
    job = Job(folder, "deaf")
    watched.slot.offer(job)
    assert job.heard.wait(PATIENCE_S)
    watched.slot.close(PATIENCE_S)
    assert job.outcome.error is not None
    assert job.outcome.error["type"] == "handed-back"
    assert not watched.slot.alive
    assert group is not None
    assert group_members(group) == set()


def test_a_worker_that_is_killed_leaves_no_codec_process(tmp_path: Path) -> None:
    program = (
        "import sys, threading, time\n"
        "from service.runs.slots import Slot\n"
        "from service.processes.supervision import ProcessSpec\n"
        f"slot = Slot(0, ProcessSpec(warm=('raw',), codecs={CODECS!r}), lambda: None, lambda event, **f: None)\n"
        "slot.start()\n"
        "while slot.state != 'ready': time.sleep(0.01)\n"
        "print(slot.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    result_store = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert result_store.stdout is not None
    group = int(result_store.stdout.readline())
    assert len(group_members(group)) == 2  # the codec process and its guard
    watches = [os.pidfd_open(member) for member in group_members(group)]
    result_store.kill()
    result_store.wait()
    result_store.stdout.close()
    for watch in watches:
        assert select.select([watch], [], [], PATIENCE_S)[0]
        os.close(watch)


def test_the_codec_process_is_not_given_the_services_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVC_KEY", "nck_0123456789_secret")
    fresh = Watched(ProcessSpec(warm=("raw",), codecs=CODECS))
    fresh.slot.start()
    fresh.wait_ready()
    assert b"nck_0123456789" not in Path(f"/proc/{fresh.slot.pid}/environ").read_bytes()
    fresh.slot.close(PATIENCE_S)


def test_bounded_memory_is_the_codecs_own_limit(folder: Path) -> None:
    watched = Watched(ProcessSpec(warm=("raw",), codecs=CODECS, memory_mb=4096))
    watched.slot.start()
    watched.wait_ready()
    limits = Path(f"/proc/{watched.slot.pid}/limits").read_text()
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert soft["Max data size"] == "4294967296"
    assert soft["Max core file size"] == "0"
    for script in ("hungry", "decoder-hungry"):
        outcome = watched.run(Job(folder, script))
        assert outcome.error is not None
        assert (outcome.error["type"], outcome.error["retry"]) == ("out-of-memory", True)
        assert "ran out of memory" in outcome.error["detail"]
    assert watched.run(Job(folder)).state == "completed"
    watched.slot.close(PATIENCE_S)


def test_a_crash_is_told_by_its_innermost_frame() -> None:
    tail = 'x\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1:\n  File "a.py", line 3 in f\n\nExtension'
    assert last_words(tail) == 'Fatal Python error: Segmentation fault File "a.py", line 3 in f'
    assert "SIGABRT" in str(how_it_died(-signal.SIGABRT, tail).error)


def test_the_slot_is_free_when_its_task_hears_of_the_end(watched: Watched, folder: Path) -> None:
    class Follower(Job):
        def ended(self, outcome: Outcome) -> None:
            self.taken = watched.slot.offer(after)
            super().ended(outcome)

    after, job = Job(folder), Follower(folder)
    assert watched.run(job).state == "completed"
    assert job.taken
    assert after.wait().state == "completed"
