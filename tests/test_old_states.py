"""State directories of other versions: an older one opens with all that it had, a newer one is refused untouched.

`states/schema-1.sql` is what the first version of the program left when it was killed: five experiments, one of each
end, one running at w1, one queued.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.fields import read_request, runs_of
from service.jobs.states import State
from service.storage.schema import MIGRATIONS
from service.storage.store import Store, StoreError, TooNew
from tests.orchestrator_rig import PATIENCE_S, ROOT, FakeWorker, Orchestrator

OLD = (ROOT / "tests" / "states" / "schema-1.sql").read_text(encoding="utf-8")
DONE, FAILED, CANCELLED = "exp_1795413926_55cee0", "exp_1795413926_20b758", "exp_1795413926_d419e8"
AT_WORK, QUEUED = "exp_1795413927_08cc96", "exp_1795413927_4fafae"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The old state directory."""
    folder = tmp_path / "orchestrator"
    folder.mkdir()
    with sqlite3.connect(folder / "orchestrator.sqlite3") as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(OLD)
    old.close()
    return folder


@pytest.fixture
def orchestrator(state: Path) -> Iterator[Orchestrator]:
    process = Orchestrator(state.parent, "--lease-s", "10", "--heartbeat-s", "0.1")
    yield process
    process.stop()


def test_a_state_directory_of_the_first_version_opens_with_all_that_it_had(orchestrator: Orchestrator) -> None:
    found = orchestrator.conservation()
    assert (found["accepted"], *(found[state] for state in State)) == (5, 1, 0, 1, 1, 1, 1)
    done = orchestrator.status(DONE)
    assert (done["status"], done["metrics"]["psnr_db"], done["settings"]["label"]) == ("completed", 38.1, "done")
    assert orchestrator.status(FAILED)["error"] == {"type": "bad-video", "detail": "truncated"}
    assert orchestrator.status(CANCELLED)["status"] == "cancelled"
    assert [event["event"] for event in orchestrator.events(DONE)] == ["state", "state", "state", "state", "result"]
    listed = orchestrator.get("/experiments?tag=paper:table-2").json()["experiments"]
    assert [row["experiment_id"] for row in listed] == [DONE]


def test_what_was_unfinished_goes_on_where_it_was(orchestrator: Orchestrator) -> None:
    worker = FakeWorker(orchestrator, "w1", slots=0)
    worker.held[AT_WORK] = 1        # it went on while the orchestrator was replaced
    worker.register()
    assert worker.end({"run": AT_WORK, "attempt": 1}).status_code == 200
    worker.slots = 1
    offer = worker.next_offer()
    assert (offer["run"], offer["attempt"], offer["experiment"]["quality"]) == (QUEUED, 1, 44)
    worker.end(offer)
    orchestrator.until(QUEUED, "completed")
    found = orchestrator.conservation()
    assert (found["accepted"], found["completed"], found["unfinished"]) == (5, 3, [])
    assert [attempt["outcome"] for attempt in orchestrator.status(AT_WORK)["attempts"]] == ["completed"]
    worker.stop()


def test_a_newer_state_directory_is_refused_and_not_touched(state: Path) -> None:
    database = state / "orchestrator.sqlite3"
    with sqlite3.connect(database) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = database.read_bytes()
    done = subprocess.run([sys.executable, "orchestrator.py", "--port", "0", "--state", str(state)], cwd=ROOT,
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"orchestrator.py: the database has schema version 99; this program knows up to {len(MIGRATIONS)}: "
        f"{database} was written by a later version, which is needed to open it")
    assert database.read_bytes() == before


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state")
    yield opened
    opened.close()


def submit(store: Store) -> str:
    document = read_request({})
    return store.submit(document, runs_of(document))[0]


def test_an_older_state_directory_opens_and_is_brought_up_to_date(store: Store) -> None:
    name = submit(store)
    store.close()
    later = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN note TEXT",))
    again = Store(store.folder, migrations=later)
    assert again.run(name).state == "queued"
    again.close()
    with pytest.raises(TooNew, match="the database has schema version 6; this program knows up to 5"):
        Store(store.folder)


def test_results_from_before_figures_were_kept_apart_have_them_after_opening(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "orchestrator.sqlite3")
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    old.execute("INSERT INTO experiments VALUES (1, 'exp_1', 'completed', '', '{}', 0, 1, '', '')")
    old.execute("INSERT INTO runs VALUES (1, 'exp_1', 1, 'completed', 1, 0, 0, NULL, 1, '{}', '{}')")
    old.execute("""INSERT INTO results VALUES (1, NULL, NULL, '{"metrics": {"bpp": 0.5}, "encoding_result":
                   {"sha256": "ab"}, "decoding_result": {"quality_metrics": {"psnr_y": 38.5}}}')""")
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    again = Store(tmp_path)
    figures = again.grid("exp_1")[0].figures or {}
    again.close()
    assert (figures["bpp"], figures["psnr_y"], figures["stream_sha256"], figures["ssim"]) == (0.5, 38.5, "ab", None)


def test_a_migration_that_fails_leaves_the_old_version(store: Store) -> None:
    name = submit(store)
    store.close()
    broken = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN note TEXT", "this is no SQL"))
    with pytest.raises(StoreError, match="cannot open"):
        Store(store.folder, migrations=broken)
    again = Store(store.folder)
    assert again.run(name).state == "queued"
    again.close()
