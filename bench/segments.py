"""Measure clips that are cut over workers: python -m bench.segments [--clips DIR] > bench/results/segments.json

    real        two workers of one thread and one core each, against one of them: the same clip in one piece, and in two
                and eight segments, at two efforts; from the submission to the result, in turns; and how long the join
                takes of it
    simulated   a real orchestrator, and a worker with 32 slots that is played here and only waits: 60 s for a whole
                clip, each segment its share, the join nothing; in one piece, in 32 and in 64 segments

Each figure is given for each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.codec import path_of
from bench.service import Caller, Played, machine, note, running, wait_end, wait_for_worker
from service.http.client import Client

ROOT = Path(__file__).resolve().parent.parent
CLIP, FRAMES, PERIOD = "crowd_360p.mp4", 64, 8
EFFORTS = (0, 1)
WHOLE_S, SLOTS = 60.0, 32


class Waiting(Played):
    """A worker that takes WHOLE_S for a clip, and its share for a segment."""

    def end(self, wanted: dict[str, Any]) -> None:
        if "segment" in wanted:
            time.sleep(WHOLE_S / wanted["segment"]["of"])
        elif "segments" not in wanted:
            time.sleep(WHOLE_S)
        super().end(wanted)


def timed_run(call: Caller, **fields: Any) -> tuple[float, dict[str, Any]]:
    """Seconds from the submission to the result, and the result."""
    began = time.perf_counter()
    name = call("POST", "/experiment", fields)["experiment_id"]
    document = wait_end(call, name)
    return time.perf_counter() - began, document


def seconds_at_work(document: dict[str, Any]) -> float:
    """Of the run's last attempt: of a clip that was cut, the join."""
    last = document["attempts"][-1]
    ended, began = (datetime.fromisoformat(last[name]) for name in ("ended", "dispatched"))
    return (ended - began).total_seconds()


def real(folder: Path, clips: Path, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        orchestrator = stack.enter_context(running("orchestrator", folder))
        for name in ("w1", "w2"):
            (folder / name).mkdir()
            stack.enter_context(running("worker", folder / name, "--orchestrator", orchestrator, "--name", name,
                                        "--threads", "1"))
        Client(orchestrator).put_file(f"/clips/{CLIP}", path_of(CLIP, clips))
        call = Caller(orchestrator)
        for _ in range(2):
            wait_for_worker(call)
            timed_run(call, clip=CLIP, frames=FRAMES, intra_period=PERIOD, segments=2)    # everything is loaded
        rows = {f"effort_{effort}": at_effort(call, effort, rounds) for effort in EFFORTS}
    return {"clip": CLIP, "frames": FRAMES, "intra_period": PERIOD, **rows}


def at_effort(call: Caller, effort: int, rounds: int) -> dict[str, Any]:
    made: dict[str, list[float]] = {name: [] for name in ("one_piece", "two_segments", "eight_segments", "join")}
    streams = set()
    for number in range(rounds):
        note(f"effort {effort}, round {number + 1} of {rounds}")
        for name, of in (("one_piece", None), ("two_segments", 2), ("eight_segments", 8)):
            seconds, document = timed_run(call, clip=CLIP, frames=FRAMES, intra_period=PERIOD, effort=effort,
                                          segments=of)
            made[name].append(round(seconds, 3))
            streams.add(document["encoding_result"]["sha256"])
            if name == "two_segments":
                made["join"].append(round(seconds_at_work(document), 3))
    if len(streams) != 1:
        raise RuntimeError(f"the streams differ: {streams}")
    speedup = {name: round(statistics.median(one / cut for one, cut in zip(made["one_piece"], made[name], strict=True)),
                           3) for name in ("two_segments", "eight_segments")}
    return {"seconds": made, "speedup": speedup, "same_stream": True}


def simulated(folder: Path) -> dict[str, Any]:
    rows = {}
    with ExitStack() as stack:
        orchestrator = stack.enter_context(running("orchestrator", folder))
        played = Waiting(orchestrator, SLOTS, segmented=["nvc"])
        stack.callback(played.stop)
        call = Caller(orchestrator)
        wait_for_worker(call)
        for of in (None, 32, 64):
            seconds, _ = timed_run(call, clip="carphone", intra_period=1, segments=of, timeout_s=300)
            rows[str(of or 1)] = {"seconds": round(seconds, 3), "speedup": round(WHOLE_S / seconds, 2)}
    return {"slots": SLOTS, "whole_s": WHOLE_S, "segments": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "data" / "test")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        for part in ("real", "simulated"):
            (Path(name) / part).mkdir()
        made = {"machine": machine(Path(name)), "real": real(Path(name) / "real", options.clips, options.rounds),
                "simulated": simulated(Path(name) / "simulated")}
    json.dump(made, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
