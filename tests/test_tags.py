"""Tags are changed after the submission, and stored once for all runs of an experiment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

import client as program
from service.jobs.fields import FieldError, changed_tags, read_request, runs_of
from service.storage.database import DATABASE
from service.storage.records import UnknownExperiment
from service.storage.registry import Registry
from service.storage.store import Store
from tests.orchestrator_rig import PATIENCE_S, Orchestrator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path)) as made:
        yield made


def patch(running: Orchestrator, name: str, document: Any) -> requests.Response:
    return requests.patch(f"{running.url}/experiment/{name}/tags", json=document, timeout=PATIENCE_S)


def test_tags_are_set_and_taken_away(running: Orchestrator) -> None:
    name = running.submit(tags={"paper": "table-2", "draft": "yes"}, quality=[1, 2])
    answer = patch(running, name, {"draft": None, "keep": "always"})
    assert answer.json() == {"tags": {"paper": "table-2", "keep": "always"}}
    assert running.status(name)["settings"]["tags"] == {"paper": "table-2", "keep": "always"}
    assert running.status(f"{name}.1")["settings"]["tags"] == {"paper": "table-2", "keep": "always"}
    found = [row["experiment_id"] for row in running.get("/experiments?tag=keep:always").json()["experiments"]]
    assert name in found
    assert name not in str(running.get("/experiments?tag=draft").json())


@pytest.mark.parametrize(("document", "words"), [
    ([1], "not an object"), ({"a b": "x"}, "a tag's name must be"), ({"a": 1}, "tag a: expected a string"),
    ({str(n): "x" for n in range(33)}, "an object of at most 32 strings"),
])
def test_wrong_tags_are_refused_and_nothing_is_changed(running: Orchestrator, document: Any, words: str) -> None:
    name = running.submit(tags={"kept": "yes"})
    answer = patch(running, name, document)
    assert answer.status_code in (400, 422)
    assert words in answer.json()["detail"]
    assert running.status(name)["settings"]["tags"] == {"kept": "yes"}


def test_unknown_experiments_have_no_tags(running: Orchestrator) -> None:
    assert patch(running, "exp_1_abcdef", {"a": "b"}).status_code == 404


def test_from_the_command_line(running: Orchestrator, capsys: pytest.CaptureFixture[str]) -> None:
    name = running.submit(tags={"draft": "yes"})
    assert program.main(["--url", running.url, "tag", name, "paper=table-2", "draft="]) == 0
    assert capsys.readouterr().out == "paper=table-2\n"


def test_a_change_of_nothing_changes_nothing() -> None:
    assert changed_tags({"a": "b"}, {}) == {"a": "b"}
    with pytest.raises(FieldError, match="expected an object of names and strings or null, got an array"):
        changed_tags({}, [])


def test_what_all_runs_have_in_common_is_stored_once(store: Store, tmp_path: Path) -> None:
    tags = {f"name{n}": "v" * 100 for n in range(10)}
    document = read_request({"tags": tags, "quality": list(range(64)), "label": "a long one " * 10})
    name, runs = store.submit(document, runs_of(document))
    assert store.run(f"{name}.7").settings == runs[7].settings == runs_of(document)[7]
    assert [run.settings for run in store.grid(name)] == runs_of(document)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        [stored] = db.execute("SELECT settings FROM runs WHERE id = ?", (f"{name}.7",)).fetchone()
    assert json.loads(stored) == {"quality": 7}


def test_tags_of_an_unknown_experiment_are_not_changed(store: Store) -> None:
    with pytest.raises(UnknownExperiment):
        store.change_tags("exp_1_abcdef", dict)


def test_the_database_gives_back_what_deleted_experiments_took(store: Store, tmp_path: Path) -> None:
    document = read_request({"tags": {"a": "x" * 200}, "quality": list(range(64))})
    names = [store.submit(document, runs_of(document))[0] for _ in range(40)]
    for name in names:
        store.cancel(name, "x")
        store.delete(name)
    while store.shrink(64) > 0:
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] == 0
        assert db.execute("PRAGMA page_count").fetchone()[0] < 100


def test_what_a_clips_name_meant_before_is_forgotten_when_no_run_is_of_it(store: Store) -> None:
    registry = Registry(store)
    for sha256 in ("aa", "bb", "cc"):
        registry.put_clip("film", sha256, 1, {})
    document = read_request({"clip": "film"})
    store.submit(document, runs_of(document), clips=[{"name": "film", "sha256": "bb", "url": None}])
    assert registry.forget_old_clips(store.clock() - 60) == 0       # too young
    assert registry.forget_old_clips(store.clock() + 1) == 1
    assert [bool(registry.clip(sha256=sha256)) for sha256 in ("aa", "bb", "cc")] == [False, True, True]
