"""How many slots a Ray cluster has, followed as nodes come and go.

    python service/ray/cluster.py --address auto --threads 2 --gpus 0
    {"slots": 12, "nodes": 3}            a line whenever it has changed, until standard input ends

A process of its own: a Ray driver dies with its cluster, and a worker must not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.py")
LOOK_S = 0.5
PAUSES_S = (0.5, 1.0, 2.0, 5.0)     # between tries to reach a cluster that does not answer
CONNECT_S = 60.0                    # for the first line
# How long Ray's own client waits for a head that is gone; a minute by itself.
ENVIRONMENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


def missing() -> str:
    """What to do where Ray is not installed; "" where it is."""
    if importlib.util.find_spec("ray") is None:
        return "engine: ray is not installed; pip install -r requirements-ray.txt"
    return ""


def driver_program(address: str, threads: int, gpus: int) -> tuple[str, ...]:
    """What takes the place of a codec process, with its arguments."""
    return str(DRIVER), "--address", address, "--threads", str(threads), "--gpus", str(gpus)


def slots_of(nodes: list[dict[str, Any]], threads: int, gpus: int) -> int:
    """How many actors of so many threads and GPUs the living nodes have room for."""
    total = 0
    for node in nodes:
        has = node.get("Resources", {})
        if node.get("Alive"):
            total += int(min(has.get("CPU", 0.0) // threads, has.get("GPU", 0.0) // gpus if gpus else float("inf")))
    return total


class Cluster:
    """Follows the cluster in a thread: `changed(slots, trouble)` is called whenever one of them is another; 0 slots
    while the cluster cannot be reached, and then why."""

    def __init__(self, address: str, threads: int, gpus: int, changed: Callable[[int, str], None]) -> None:
        self._command = [sys.executable, __file__, "--address", address, "--threads", str(threads), "--gpus", str(gpus)]
        self._changed = changed
        self._closing = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="ray-cluster", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._child is not None:
            self._child.kill()

    def _follow(self) -> None:
        failures = 0
        while not self._closing.is_set():
            said = "no answer"
            with subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, env={**os.environ, **ENVIRONMENT}) as child:
                self._child = child
                assert child.stdout is not None     # asked for by stdout=PIPE
                if select.select([child.stdout], [], [], CONNECT_S)[0]:
                    for line in child.stdout:       # all of it: nobody else empties the pipe
                        if line.startswith('{"slots"'):
                            failures = 0
                            self._changed(json.loads(line)["slots"], "")
                        elif line.strip():
                            said = line.strip()[:300]
                child.kill()
            if not self._closing.is_set():
                self._changed(0, f"the Ray cluster cannot be reached: {said}")
                self._closing.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Started by a worker with --engine ray, not by hand.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    options = parser.parse_args()
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    import ray

    ray.init(address=options.address, log_to_driver=False)
    before = None
    while not select.select([0], [], [], LOOK_S)[0]:
        nodes = ray.nodes()
        now = slots_of(nodes, options.threads, options.gpus), sum(bool(node.get("Alive")) for node in nodes)
        if now != before:
            print(json.dumps({"slots": now[0], "nodes": now[1]}), flush=True)
            before = now
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)     # Ray's own farewell to a cluster that is gone takes its time
