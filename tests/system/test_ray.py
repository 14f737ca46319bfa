"""A worker that is the way to a Ray cluster of two nodes: nodes that come and go, and a head that dies."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from deployment import PATIENCE_S, ROOT, Deployment, wait_until

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (requirements-ray.txt)")
HEAD = {"num_cpus": 0, "include_dashboard": False}


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NVC_TEST_GATE", str(tmp_path / "gate"))     # nodes inherit it
    return tmp_path / "gate"


@pytest.fixture
def cluster(gate: Path) -> Iterator[Any]:
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=HEAD)
    made.nodes = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    yield made
    made.shutdown()


def deployed(tmp_path: Path, address: str) -> Deployment:
    return Deployment(tmp_path, 1, "--engine", "ray", "--ray-address", address)


def free_slots(deployment: Deployment) -> int:
    return deployment.worker_list()[0]["free"]


def test_a_run_whose_node_dies_is_done_on_another_one_and_ends_once(cluster: Any, gate: Path, tmp_path: Path) -> None:
    with deployed(tmp_path, cluster.address) as deployment:
        wait_until(lambda: free_slots(deployment) == 2, "a slot for each node")
        first = deployment.submit("gate")
        deployment.wait_phase(first, "gate")
        second = deployment.submit("gate")
        deployment.wait_phase(second, "gate")       # both nodes are at work now
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)
        wait_until(lambda: "worker-lost" in str(deployment.status(first)) + str(deployment.status(second)), "its end")
        gate.touch()
        ended = [deployment.wait_end(name) for name in (first, second)]
        assert [document["status"] for document in ended] == ["completed", "completed"]
        hit, = (document for document in ended if len(document["attempts"]) > 1)     # the other one went on
        first, *others, last = [attempt["outcome"] for attempt in hit["attempts"]]
        assert (first, last) == ("worker-lost", "completed")
        assert set(others) <= {"handed-back", "codec-not-ready"}, hit["attempts"]    # by a slot that finds no room
        wait_until(lambda: deployment.worker_list()[0]["slots"] == 1, "one slot less")
        cluster.add_node(num_cpus=1)
        wait_until(lambda: free_slots(deployment) == 2, "the new node's slot")
        assert deployment.conservation()["holds"]


def test_a_head_that_dies_is_said_and_returned_to(gate: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start() -> Any:
        return cluster_utils.Cluster(initialize_head=True, head_node_args={**HEAD, "num_cpus": 1,
                                                                           "gcs_server_port": port})

    head = start()
    try:
        with deployed(tmp_path, f"127.0.0.1:{port}") as deployment:
            [worker] = deployment.workers
            wait_until(lambda: free_slots(deployment) == 1, "a slot")
            name = deployment.submit("gate")
            deployment.wait_phase(name, "gate")
            head.shutdown()
            wait_until(lambda: requests.get(f"{worker.url}/readyz", timeout=PATIENCE_S).status_code == 503, "the end")
            wait_until(lambda: "the Ray cluster cannot be reached" in worker.get("/readyz").get("detail", ""), "why")
            wait_until(lambda: deployment.status(name)["status"] == "queued", "the run's return")
            gate.touch()
            head = start()
            document = deployment.wait_end(name)
            first, *others, last = [attempt["outcome"] for attempt in document["attempts"]]
            assert first in ("worker-lost", "handed-back")      # by who sees it first, the driver or the worker
            assert set(others) <= {"codec-not-ready", "handed-back"}
            assert last == "completed"
            assert requests.get(f"{worker.url}/readyz", timeout=PATIENCE_S).status_code == 200
    finally:
        head.shutdown()


def test_without_ray_the_engine_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    code = ("import importlib.util as u, sys; found = u.find_spec; "
            "u.find_spec = lambda name, *more: None if name == 'ray' else found(name, *more); "
            "import worker; sys.exit(worker.main(['--engine', 'ray', '--state', sys.argv[1]]))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "state")], cwd=ROOT, capture_output=True,
                          text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (
        1, "worker.py: engine: ray is not installed; pip install -r requirements-ray.txt\n")


def test_a_worker_is_replaced_by_another_on_the_same_cluster_while_runs_come_in(
        cluster: Any, gate: Path, tmp_path: Path) -> None:
    with deployed(tmp_path, cluster.address) as deployment:
        names = [deployment.submit() for _ in range(4)]
        deployment.add_worker("--engine", "ray", "--ray-address", cluster.address)
        names += [deployment.submit() for _ in range(4)]
        assert deployment.workers[0].terminate() == 0       # drains; its slots' nodes become the other one's
        names += [deployment.submit() for _ in range(4)]
        ended = [deployment.wait_end(name) for name in names]
        assert [document["status"] for document in ended] == ["completed"] * 12
        assert ended[-1]["attempts"][-1]["worker"] == "w2"
        assert deployment.conservation()["holds"]
