"""Measure what bounds hold the orchestrator to: python -m bench.limits [--small] > bench/results/limits.json

    size      bytes of database a run: 1,000 sweeps of 100 runs, with 1 kB of tags each
    restart   150,000 runs queued: seconds from the start until it is ready, and until all are in memory; memory then
    backup    10,000 experiments: seconds, and the longest submission meanwhile
    uploads   12 at once of a picture of 8192×4288 in a few kilobytes: the most memory of the orchestrator and of the
              processes that look at them; an answer to others (p50, p99) without and beside them
    crowded   a worker's artifact and result beside 32 uploads that trickle and 256 event streams that nobody reads

Times in milliseconds where they do not say otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from bench.service import Caller, Played, machine, note, running, spread, wait_for_worker
from deployment_check.attack import flat_png
from service.jobs.fields import read_request, runs_of
from service.storage.store import Store

ROOT = Path(__file__).resolve().parent.parent
TAGS = {f"name{n}": "v" * 90 for n in range(10)}
SWEEP = {"quality": list(range(50)), "effort": [0, 1], "tags": TAGS}


def filled(folder: Path, sweeps: int, request: dict[str, Any]) -> int:
    """A state with so many experiments of this request; its database's bytes."""
    store = Store(folder / "orchestrator")
    document = read_request(request)
    for _ in range(sweeps):
        store.submit(document, runs_of(document))
    store.close()
    return sum(path.stat().st_size for path in (folder / "orchestrator").glob("orchestrator.sqlite3*"))


def memory_of(state: Path) -> int:
    """Bytes in memory of the orchestrator of a state folder and of what it has started."""
    found = subprocess.run(["pgrep", "-f", "--", f"--state {state}"], capture_output=True, text=True, check=False)
    parents = found.stdout.split()
    total = 0
    for pid in parents + [child for parent in parents for child in children(parent)]:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total


def children(pid: str) -> list[str]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += (task / "children").read_text().split()
    except OSError:
        pass
    return found


def restart(folder: Path, sweeps: int) -> dict[str, Any]:
    size = filled(folder, sweeps, {**SWEEP, "quality": list(range(50)), "effort": [0, 1, 2]})
    began = time.perf_counter()
    with running("orchestrator", folder) as url:
        while requests.get(f"{url}/readyz", timeout=60).status_code != 200:
            time.sleep(0.01)
        ready = time.perf_counter() - began
        while "queue-read" not in (folder / "orchestrator.log").read_text():
            time.sleep(0.01)
        read = time.perf_counter() - began
        memory = memory_of(folder / "orchestrator")
    return {"runs": 150 * sweeps, "ready_s": round(ready, 2), "queue_read_s": round(read, 2),
            "memory_mb": round(memory / 1e6),
            "database_mb": round(size / 1e6, 1)}


def backup(folder: Path, count: int) -> dict[str, Any]:
    filled(folder, count, {"tags": {"a": "b"}})
    with running("orchestrator", folder) as url:
        call, times, over = Caller(url), [], threading.Event()

        def submit() -> None:
            while not over.is_set():
                began = time.perf_counter()
                call("POST", "/experiment", {})
                times.append(time.perf_counter() - began)

        submitting = threading.Thread(target=submit)
        submitting.start()
        time.sleep(1.0)
        alone = len(times)
        began = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "orchestrator.py"), "backup", str(folder / "copy"), "--state",
                        str(folder / "orchestrator")], check=True, capture_output=True)
        took = time.perf_counter() - began
        over.set()
        submitting.join()
    return {"experiments": count, "seconds": round(took, 2), "submit_alone": spread(times[:alone]),
            "submit_beside": spread(times[alone:])}


def answers(url: str, seconds: float) -> dict[str, float]:
    call, times, until = Caller(url), [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        call("GET", "/experiments?limit=1")
        times.append(time.perf_counter() - began)
        time.sleep(0.005)
    return spread(times)


def uploads(folder: Path) -> dict[str, Any]:
    png, most = flat_png(8192, 4288), [0]
    with running("orchestrator", folder) as url, ThreadPoolExecutor(12) as pool:
        alone = answers(url, 3.0)
        sending = [pool.submit(requests.put, f"{url}/clips/p{n}.png", data=png, timeout=120) for n in range(12)]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                most[0] = max(most[0], memory_of(folder / "orchestrator"))

        watching = threading.Thread(target=watch)
        watching.start()
        beside = answers(url, 3.0)
        statuses = sorted(each.result().status_code for each in sending)
        over.set()
        watching.join()
    return {"statuses": statuses, "peak_mb": round(most[0] / 1e6), "alone": alone, "beside": beside}


@contextmanager
def crowd(url: str, name: str) -> Iterator[int]:
    """32 uploads that trickle and 256 streams that are not read; how many were taken."""
    host, taken = urlsplit(url), 0
    with ExitStack() as stack:
        for number in range(32 + 256):
            head = f" HTTP/1.1\r\nHost: {host.netloc}\r\n"
            request = (f"PUT /clips/slow{number}{head}Content-Length: 1000000\r\n\r\nx" if number < 32 else
                       f"GET /experiment/{name}/events{head}\r\n")
            made = stack.enter_context(socket.create_connection((host.hostname, host.port), timeout=10))
            made.sendall(request.encode())
            taken += 1
        yield taken


def crowded(folder: Path) -> dict[str, Any]:
    data = b"coded" * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    with ExitStack() as stack:
        url = stack.enter_context(running("orchestrator", folder))
        played = Played(url, 1)
        played.at_once = False
        stack.callback(played.stop)
        call = Caller(url)
        wait_for_worker(call)
        name = call("POST", "/experiment", {})["experiment_id"]
        with played.got:
            played.got.wait_for(lambda: bool(played.held), 30)
        with crowd(url, name) as taken:
            began = time.perf_counter()
            requests.put(f"{url}/artifacts/{sha256}", data=data, timeout=60).raise_for_status()
            played.end(played.held[0])
            took = time.perf_counter() - began
    return {"connections": taken, "delivered_ms": round(1e3 * took, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--small", action="store_true", help="a hundredth of everything, to see that it works")
    options = parser.parse_args()
    scale = 100 if options.small else 1
    made: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        folder = Path(name)
        made["machine"] = machine(folder)
        parts: dict[str, Callable[[Path], Any]] = {
            "size": lambda place: {"bytes_a_run": round(filled(place, 1000 // scale, SWEEP) / (100_000 / scale))},
            "restart": lambda place: restart(place, 1000 // scale),
            "backup": lambda place: backup(place, 10_000 // scale),
            "uploads": uploads,
            "crowded": crowded,
        }
        for part, measure in parts.items():
            note(part)
            (folder / part).mkdir()
            made[part] = measure(folder / part)
    json.dump(made, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
