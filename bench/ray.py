"""Measure what Ray costs: python -m bench.ray [--rounds 20] > bench/results/ray.json

    overhead    from the submission to the result of a run that codes nothing, through a worker whose codec process is
                here, and through one whose codec process is on a node of a Ray cluster on this machine, in turns
    deaths      a node is killed while it codes: from the kill until its run is given up, to be tried again, and until
                the orchestrator knows of a slot less; in milliseconds, `--deaths` times
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.service import Caller, machine, note, running, spread, upload_point, wait_end

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120.0
CODECS = ("--codec", "nvc=bench.service:Nothing", "--codec", "scripted=tests.standin:Scripted")
NOTHING = {"clip": "point.mkv", "codec": "nvc"}


def until(what: Callable[[], Any]) -> float:
    """Seconds until it is so."""
    began = time.perf_counter()
    while not what():
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError("it does not come about")
        time.sleep(0.01)
    return time.perf_counter() - began


def free(call: Caller) -> int:
    return sum(worker["free"] for worker in call("GET", "/workers")["workers"])


def one_run(call: Caller) -> float:
    began = time.perf_counter()
    wait_end(call, call("POST", "/experiment", NOTHING)["experiment_id"])
    return time.perf_counter() - began


def overhead(folder: Path, address: str, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"local": [], "ray": []}
    with ExitStack() as stack:
        calls = {}
        for name, flags in (("local", ()), ("ray", ("--engine", "ray", "--ray-address", address))):
            (folder / name).mkdir()
            orchestrator = stack.enter_context(running("orchestrator", folder / name))
            stack.enter_context(running("worker", folder / name, "--orchestrator", orchestrator, "--threads", "1",
                                        *CODECS, *flags))
            upload_point(orchestrator, folder)
            calls[name] = Caller(orchestrator)
            until(lambda name=name: free(calls[name]))
            one_run(calls[name])
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(one_run(call))
    more = statistics.median(times["ray"]) - statistics.median(times["local"])
    return {**{name: spread(seconds) for name, seconds in times.items()}, "overhead_p50_ms": round(1e3 * more, 1)}


def deaths(folder: Path, cluster: Any, count: int) -> dict[str, Any]:
    """Two nodes of one slot, one at work; it is killed, and a new one joins."""
    gate = Path(os.environ["NVC_TEST_GATE"])
    nodes = list(cluster.worker_nodes)
    again, noticed = [], []
    with ExitStack() as stack:
        orchestrator = stack.enter_context(running("orchestrator", folder))
        stack.enter_context(running("worker", folder, "--orchestrator", orchestrator, "--threads", "1", *CODECS,
                                    "--engine", "ray", "--ray-address", cluster.address))
        upload_point(orchestrator, folder)
        call = Caller(orchestrator)
        for number in range(count):
            note(f"death {number + 1} of {count}")
            until(lambda: free(call) == 2)
            gate.unlink(missing_ok=True)
            runs = [call("POST", "/experiment", {**NOTHING, "codec": "scripted", "model": "gate"})["experiment_id"]
                    for _ in range(2)]

            def status(run: str) -> dict[str, Any]:
                return call("GET", f"/experiment/{run}/status")

            def at_gate(run: str, attempt: int) -> bool:
                document = status(run)
                return len(document["attempts"]) == attempt and document.get("progress", {}).get("phase") == "gate"

            for run in runs:
                until(lambda run=run: at_gate(run, 1))
            began = time.perf_counter()
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
            until(lambda runs=runs: any(status(run)["attempts"][0]["outcome"] for run in runs))
            again.append(time.perf_counter() - began)
            until(lambda: call("GET", "/workers")["workers"][0]["slots"] == 1)
            noticed.append(time.perf_counter() - began)
            gate.touch()
            for run in runs:
                wait_end(call, run)
            nodes.append(cluster.add_node(num_cpus=1))
    return {"run_given_up": spread(again), "slot_gone": spread(noticed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deaths", type=int, default=20)
    options = parser.parse_args()
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        folder = Path(name)
        os.environ |= {"NVC_TEST_GATE": str(folder / "gate"), "PYTHONPATH": str(ROOT)}      # nodes inherit both
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            for part in ("overhead", "deaths"):
                (folder / part).mkdir()
            made = {"machine": machine(folder),
                    "overhead": overhead(folder / "overhead", cluster.address, options.rounds),
                    "deaths": deaths(folder / "deaths", cluster, options.deaths)}
        finally:
            cluster.shutdown()
    json.dump(made, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
