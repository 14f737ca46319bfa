"""Measure sweeps: python -m bench.sweep [--frames 97] > bench/results/sweep.json

    sweep    4 codecs × 3 clips × 5 qualities on two workers of one thread each: wall time against the time that its
             runs took at the workers, shared by the workers. `gaps` is what placement costs: the share of a worker's
             time between one run's end there and the next one's arrival. `tail` is what the last runs cost, while one
             worker has nothing left to do.
    wide     a sweep of 1,000 runs (100 curves of 10 points, and 250 curves of 4): its status after a restart, after
             another one, and then; and the list of 10,000 experiments, by pages and whole

Times in milliseconds, but where the name says seconds. What is measured is the orchestrator, so `wide` has results that
a played worker made up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.service import ROOT, Caller, Played, machine, note, running, spread, timed, wait_for_worker
from service.http.client import Client
from service.runtime.version import VERSION

SWEEP = {"codec": ["nvc", "x264", "x265", "svtav1"], "clip": ["carphone", "bikes", "generated"],
         "quality": [10, 20, 30, 40, 50], "keep_reconstruction": False}
WIDE = {
    "100_curves_of_10": {"clip": ["bikes", "carphone", "bigbuckbunny", "generated"],
                         "model": [f"m{n}" for n in range(25)], "quality": list(range(0, 60, 6))},
    "250_curves_of_4": {"model": [f"m{n}" for n in range(250)], "quality": [0, 16, 32, 48]},
}
LIMIT_S = 1800.0


class Measured(Played):
    """Makes up results that have figures."""

    def result_of(self, wanted: dict[str, Any]) -> dict[str, Any]:
        settings = wanted["experiment"]
        quality = settings["quality"]
        rate = 0.05 * 1.07**quality * (1 + sum(map(ord, settings["model"] + settings["clip"])) % 17 / 50)
        return {"metrics": {"bitrate_mbps": rate, "bpp": rate / 3, "psnr_db": 30 + quality / 3,
                            "ssim": 0.8 + quality / 400, "ms_ssim": 0.9 + quality / 700},
                "encoding_result": {"bytes": 1000, "sha256": "a" * 64, "encode_s": 1.0},
                "decoding_result": {"decoded_sha256": "b" * 64, "decode_s": 0.5,
                                    "quality_metrics": {"psnr_y": 29 + quality / 3}}}


def wait_completed(call: Caller, experiment: str) -> dict[str, Any]:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        document = call("GET", f"/experiment/{experiment}/status", Prefer="wait=30")
        if document["status"] == "completed" and document["counts"]["completed"] == document["counts"]["total"]:
            return document
        if document["status"] in ("failed", "cancelled") or document["counts"]["failed"]:
            raise RuntimeError(f"{experiment}: {document['counts']}")
    raise RuntimeError(f"{experiment} has not ended")


# --- a real sweep --------------------------------------------------------------------------------------------------


def sweep(folder: Path, frames: int) -> dict[str, Any]:
    with ExitStack() as stack:
        folder.mkdir()
        orchestrator = stack.enter_context(running("orchestrator", folder))
        for name in ("w1", "w2"):
            (folder / name).mkdir()
            stack.enter_context(running("worker", folder / name, "--orchestrator", orchestrator, "--name", name,
                                        "--threads", "1", "--warm", ",".join(SWEEP["codec"])))
        call = Caller(orchestrator)
        while sum(worker["free"] for worker in call("GET", "/workers")["workers"]) < 2:
            time.sleep(0.1)
        began = time.time()
        experiment = call("POST", "/experiment", {**SWEEP, "frames": frames})["experiment_id"]
        document = wait_completed(call, experiment)
        wall_s = time.time() - began
    return {"runs": document["counts"]["total"], "frames": frames, "wall_s": round(wall_s, 3),
            **from_logs([folder / name / "worker.log" for name in ("w1", "w2")], began, began + wall_s)}


def from_logs(logs: list[Path], began: float, ended: float) -> dict[str, Any]:
    """What the workers themselves say: when each run came and when it was over."""
    came: dict[tuple[int, str], float] = {}
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for worker, log in enumerate(logs):
        for line in log.read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            at = datetime.fromisoformat(said["time"]).timestamp() if "time" in said else 0.0
            if said.get("event") == "run-accepted":
                came[worker, said["run"]] = at
            elif said.get("event") == "run-ended":
                spans[worker].append((came[worker, said["run"]], at))
    busy_s = sum(end - start for of in spans.values() for start, end in of)
    gaps_s = [after[0] - before[1] for of in spans.values() for before, after in zip(sorted(of), sorted(of)[1:],
                                                                                    strict=False)]
    last = [max(end for _, end in of) for of in spans.values()]
    return {
        "runs_s_over_workers": round(busy_s / len(logs), 3),
        "wall_over_that": round((ended - began) / (busy_s / len(logs)), 4),
        "gaps": {"share_percent": round(100 * sum(gaps_s) / busy_s, 3), "each_ms": spread(gaps_s)},
        "tail_s": round(max(last) - min(last), 3),
        "before_the_first_run_ms": round(1e3 * (min(came.values()) - began), 1),
    }


# --- wide sweeps, long lists, the page -----------------------------------------------------------------------------


def wide(folder: Path, experiments: int) -> dict[str, Any]:
    folder.mkdir()
    made: dict[str, Any] = {"status": {}}
    ids: dict[str, str] = {}
    with ExitStack() as stack:
        orchestrator = stack.enter_context(running("orchestrator", folder))
        played = Measured(orchestrator, 32)
        call = Caller(orchestrator)
        wait_for_worker(call)
        for name, request in WIDE.items():
            began = time.perf_counter()
            ids[name] = call("POST", "/experiment", request)["experiment_id"]
            wait_completed(call, ids[name])
            made["status"][name] = {"sweep_s": round(time.perf_counter() - began, 2)}
        note("sweeps are done")
        played.stop()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: Client(orchestrator).post("/experiment", {"label": f"number {n}"}),
                          range(experiments)))
        note("the list is long")
    for life in ("after_a_restart", "after_another"):
        with running("orchestrator", folder) as orchestrator:
            call = Caller(orchestrator)
            for name, experiment in ids.items():
                path = f"/experiment/{experiment}/status"
                made["status"][name][f"{life}_ms"] = timed(1, lambda: call("GET", path))["max"]  # noqa: B023
                made["status"][name]["then"] = timed(20, lambda: call("GET", path))  # noqa: B023
    with running("orchestrator", folder) as orchestrator:
        call = Caller(orchestrator)
        made["list"] = {f"page_of_{size}": timed(20, lambda: call("GET", f"/experiments?limit={size}"))  # noqa: B023
                        for size in (100, 1000)}
        began, cursor, count = time.perf_counter(), "", 0
        while cursor is not None:
            page = call("GET", f"/experiments?limit=1000{f'&cursor={cursor}' if cursor else ''}")
            cursor, count = page["next_cursor"], count + len(page["experiments"])
        made["list"]["all"] = {"experiments": count, "ms": round(1e3 * (time.perf_counter() - began), 1)}
        made["conservation"] = timed(20, lambda: call("GET", "/conservation"))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=97, help="pictures of each clip (97)")
    parser.add_argument("--experiments", type=int, default=10_000, help="length of the list (10000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        folder = Path(name)
        made = {"machine": machine(folder), "sweep": sweep(folder / "sweep", options.frames),
                **wide(folder / "wide", options.experiments)}
        made["machine"]["load_average_at_end"] = os.getloadavg()
    print(json.dumps({"command": "python -m bench.sweep", "version": VERSION, **made}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
