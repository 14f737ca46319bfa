"""How much is kept, and how much a client's key may ask for in a day."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

import orchestrator as program
from service.api.maintenance import Maintenance
from service.api.quotas import Quota
from service.jobs.fields import read_request
from service.runtime.logs import Log
from service.storage.blobs import Blobs
from service.storage.registry import Registry
from service.storage.retention import Usage
from service.storage.store import Store
from tests.clock import Clock
from tests.orchestrator_rig import PATIENCE_S, Orchestrator, problem

REQUEST = read_request({})
VIDEO = b"YUV4MPEG2 W16 H16 F25:1 C420\nFRAME\n" + bytes(384)


def completed(store: Store, number: int, reconstruction: int, stream: int = 100, **tags: str) -> str:
    """An experiment with artifacts of so many bytes."""
    name, _ = store.submit(REQUEST | {"tags": tags}, [REQUEST], principal="p", key=f"k{number}", body_sha256="b")
    store.place(name, 0, "w1")
    store.start(name, 1).result(10)
    store.complete(name, 1, {"metrics": {"psnr_db": 38.1}}, {
        "stream.nvc": {"sha256": f"s{number}", "bytes": stream},
        "reconstruction.mkv": {"sha256": f"r{number}", "bytes": reconstruction}})
    return name


def upkeep(store: Store, tmp_path: Path, keep_bytes: int) -> Maintenance:
    return Maintenance(store, Registry(store), Blobs(tmp_path / "files"), Log(io.StringIO()), keep_days=0,
                       keep_unnamed_s=0.0, keep_gb=keep_bytes / 1e9)


def names_of(store: Store, experiment: str) -> tuple[list[str], list[str]]:
    """What is kept of it, and what was removed."""
    record = store.experiment(experiment).runs[0]
    return sorted(record.artifacts), sorted(record.removed)


def sweep(store: Store, tmp_path: Path, keep_bytes: int) -> None:
    maintenance = upkeep(store, tmp_path, keep_bytes)
    for _ in range(10):
        if maintenance.sweep():
            return
    pytest.fail("it never ends")


# --- keep_gb


def test_what_is_named_is_counted_once_for_each_file(store: Store, tmp_path: Path) -> None:
    completed(store, 1, 1000)
    Registry(store).put_clip("a", "r1", 1000, {})       # the same bytes under another name
    assert upkeep(store, tmp_path, 1).retention.named_bytes() == 1100


def test_reconstructions_go_first_and_the_oldest_first_and_no_more_than_needed(store: Store, tmp_path: Path) -> None:
    experiments = [completed(store, number, 1000) for number in range(4)]
    sweep(store, tmp_path, 3000)
    assert [names_of(store, name) for name in experiments] == [
        (["stream.nvc"], ["reconstruction.mkv"]), (["stream.nvc"], ["reconstruction.mkv"]),
        (["reconstruction.mkv", "stream.nvc"], []), (["reconstruction.mkv", "stream.nvc"], [])]


def test_what_has_the_tag_keep_and_what_has_not_ended_stays(store: Store, tmp_path: Path) -> None:
    kept = completed(store, 1, 1000, keep="")
    store.submit(REQUEST, [REQUEST])
    sweep(store, tmp_path, 1)
    assert names_of(store, kept) == (["reconstruction.mkv", "stream.nvc"], [])
    assert len(store.page()[0]) == 2


def test_where_reconstructions_are_not_enough_the_oldest_experiments_go(store: Store, tmp_path: Path) -> None:
    experiments = [completed(store, number, 10, stream=1000) for number in range(3)]
    sweep(store, tmp_path, 2000)
    assert [found.id for found in store.page()[0]] == experiments[:0:-1]
    assert store.conservation().deleted == 1


def test_within_the_bound_nothing_goes(store: Store, tmp_path: Path) -> None:
    name = completed(store, 1, 1000)
    sweep(store, tmp_path, 1100)
    assert names_of(store, name)[1] == []


# --- quotas


@pytest.mark.parametrize(("text", "found"), [("", {}), ("runs=1000,gb=0.5", {"runs": 1000, "gb": 0.5}),
                                             ("experiments=0", {"experiments": 0})])
def test_a_quota_is_read_from_words(text: str, found: dict[str, float]) -> None:
    assert Quota.read(text) == found


@pytest.mark.parametrize("text", ["runs", "walks=3", "runs=1.5", "runs=-1", "gb=nan"])
def test_a_wrong_quota_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|invalid|convert"):
        Quota.read(text)


def test_what_a_key_used_is_forgotten_after_a_day(store: Store, clock: Clock, tmp_path: Path) -> None:
    completed(store, 1, 10)
    Registry(store).put_clip("a", "c", 500, {}, "p")
    retention = upkeep(store, tmp_path, 1).retention
    assert (retention.used("p"), retention.used("q")) == (Usage(1, 1, 500), Usage(0, 0, 0))
    clock.now += 86_401
    assert retention.used("p") == Usage(0, 0, 0)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orchestrator, dict[str, str]]]:
    """An orchestrator with keys, of which `own` has bounds of its own."""
    folder = tmp_path_factory.mktemp("quotas")
    keys = {}
    for name, words in (("client", ["client"]), ("own", ["client", "--quota", "runs=9"]), ("admin", ["admin"]),
                        ("crowd", ["client", "--quota", "experiments=3"])):
        made = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", made)
            assert program.main(["keys", "--state", str(folder / "orchestrator"), "add", "--role", *words]) == 0
        keys[name] = made.getvalue().strip()
    running = Orchestrator(folder, "--quota-runs", "5", "--quota-experiments", "3", "--quota-gb", "0.000001")
    yield running, keys
    running.stop()


def post(bounded: tuple[Orchestrator, dict[str, str]], key: str, runs: int) -> requests.Response:
    running, keys = bounded
    return requests.post(f"{running.url}/experiment", json={"quality": list(range(runs))}, timeout=PATIENCE_S,
                         headers={"Authorization": f"Bearer {keys[key]}"})


def test_a_client_over_its_runs_is_told_the_bound_and_what_changes_it(bounded: tuple[Orchestrator, dict[str, str]]
                                                                      ) -> None:
    assert post(bounded, "client", 4).status_code == 202
    answer = post(bounded, "client", 2)
    assert problem(answer)[:2] == (429, "quota")
    assert answer.json()["detail"] == (
        "quota_runs: this key may have 5 runs in 24 hours; it has had 4, and 2 more were asked for. An admin changes "
        "it: quota_runs, or keys add --quota runs=…")
    assert answer.headers["Retry-After"] == "3600"
    assert post(bounded, "client", 1).status_code == 202


def test_a_key_with_bounds_of_its_own_has_those(bounded: tuple[Orchestrator, dict[str, str]]) -> None:
    assert post(bounded, "own", 9).status_code == 202
    assert "keys add --quota runs=…" in post(bounded, "own", 1).json()["detail"]


def test_submissions_at_the_same_time_do_not_pass_the_bound_together(bounded: tuple[Orchestrator, dict[str, str]]
                                                                      ) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(lambda _: post(bounded, "crowd", 1).status_code, range(12)))
    assert codes == [202] * 3 + [429] * 9


def test_an_admin_has_no_bounds(bounded: tuple[Orchestrator, dict[str, str]]) -> None:
    assert [post(bounded, "admin", 9).status_code for _ in range(4)] == [202] * 4


def test_uploads_at_the_same_time_do_not_pass_the_bound_together(bounded: tuple[Orchestrator, dict[str, str]]
                                                                 ) -> None:
    running, keys = bounded

    def upload(n: int) -> int:
        return requests.put(f"{running.url}/clips/own{n}", data=VIDEO, timeout=PATIENCE_S,
                            headers={"Authorization": f"Bearer {keys['own']}"}).status_code
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(upload, range(8)))
    assert codes.count(201) in (1, 2)   # of 420 bytes; 1,000 are allowed; one that ends may count twice at once
    assert codes.count(429) == 8 - codes.count(201)


def test_uploads_count_by_their_bytes(bounded: tuple[Orchestrator, dict[str, str]]) -> None:
    running, keys = bounded
    codes = [requests.put(f"{running.url}/clips/c{n}", data=VIDEO, timeout=PATIENCE_S,
                          headers={"Authorization": f"Bearer {keys['client']}"}).status_code for n in range(3)]
    assert codes == [201, 201, 429]     # of 420 bytes each; 1,000 are allowed
