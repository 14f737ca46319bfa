"""Speed of nvc beside other learned codecs, encoding and decoding: python -m bench.speed [--others PYTHON]

    nvc             a clip, at the default settings
    nvc, intra      pictures each alone
    mbt2018-mean    CompressAI's image model at quality 4, pictures each alone
    ssf2020         CompressAI's video model at quality 4, an intra picture and those that follow

In frames a second, from pictures in memory to bytes and back, entropy coding included, on the same clips and number of
threads.  CompressAI's run in an environment of their own (bench/requirements-others.txt), which --others is the Python
of, each in a process that stays; their weights are random, which changes their rate and not their arithmetic.  All take
turns, ``--repeats`` times, after a turn that does not count; the slow ones code fewer pictures, and ``pictures`` says
how many.  nvc works on 4:2:0 planes and the others on RGB of these, with sides filled up to multiples of 64 and 128:
none of that is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codec
from bench.codec import SIZES, machine, path_of
from coding.interface import Settings
from nvc.network.model import DEFAULT_MODEL, load_model
from video.files import open_clip
from video.picture import ClipInfo, Picture
from video.rgb import rgb

ROOT = Path(__file__).resolve().parent.parent
AT = ("352x288", "640x360")
PICTURES = {"nvc": 33, "nvc, intra": 9, "mbt2018-mean": 4, "ssf2020": 4}
STRUCTURES = {"nvc": "random_access", "nvc, intra": "intra"}
OTHERS = [name for name in PICTURES if name not in STRUCTURES]
Once = Callable[[], dict[str, float]]  # gives encode_s, decode_s, bytes


class Other:
    """A process that has one of CompressAI's models. A context manager."""

    def __init__(self, python: str, model: str, threads: int) -> None:
        command = [python, str(ROOT / "bench/others/neural.py"), model, "--threads", str(threads)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed on the way out)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                                         text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})

    def once(self, file: Path, pictures: int) -> dict[str, float]:
        """Seconds and bytes of coding them. OtherFailed with the last that it said."""
        pipes = self._process.stdin, self._process.stdout
        line = ""
        if pipes[0] and pipes[1] and self._process.poll() is None:
            with suppress(BrokenPipeError):
                print(json.dumps({"file": str(file), "pictures": pictures}), file=pipes[0], flush=True)
                line = pipes[1].readline()
        if not line:
            self._errors.seek(0)
            raise OtherFailed((self._errors.read().strip().splitlines() or ["it ended without a word"])[-1])
        return json.loads(line)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


class OtherFailed(Exception):
    """The other environment cannot do it."""


def ours(pictures: Sequence[Picture], info: ClipInfo, settings: Settings) -> dict[str, float]:
    """nvc, once there and back."""
    nvc = codec.get("nvc")
    began = time.perf_counter()
    encoded = nvc.encode(pictures, info, settings)
    middle = time.perf_counter()
    for _ in nvc.decode(encoded.data):
        pass
    return {"encode_s": middle - began, "decode_s": time.perf_counter() - middle, "bytes": len(encoded.data)}


def in_turn(runs: dict[str, Once], repeats: int) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Each once for nothing, then each in turn, again and again; and those that failed with their last words."""
    made: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    left_out: dict[str, str] = {}
    for turn in range(repeats + 1):
        for name in [name for name in runs if name not in left_out]:
            try:
                seen = runs[name]()
            except OtherFailed as error:
                left_out[name] = str(error)
                del made[name]
                continue
            print(f"{name}: {seen['encode_s']:.2f} + {seen['decode_s']:.2f} s", file=sys.stderr, flush=True)
            if turn:
                made[name].append(seen)
    return made, left_out


def summary(runs: Sequence[dict[str, float]], pictures: int, pixels: int) -> dict[str, Any]:
    """Frames a second by part: the median, the slowest and fastest run, and all of them."""

    def spread(part: str) -> dict[str, Any]:
        fps = [round(pictures / run[part], 2) for run in runs]
        return {"median": round(statistics.median(fps), 2), "lowest": min(fps), "highest": max(fps), "runs": fps}

    bpp = round(8 * runs[0]["bytes"] / (pictures * pixels), 4)
    return {"pictures": pictures, "encode_fps": spread("encode_s"), "decode_fps": spread("decode_s"), "bpp": bpp}


def at(size: str, options: argparse.Namespace, folder: Path, others: dict[str, Other]) -> dict[str, Any]:
    """All codecs at one size."""
    counts = {name: min(count, options.pictures or count) for name, count in PICTURES.items()}
    with open_clip(path_of(SIZES[size], options.clips)) as clip:
        info, pictures = clip.info, list(islice(clip, max(counts.values())))
    file, most = folder / f"{size}.npy", max(counts[model] for model in OTHERS)
    np.save(file, np.stack([np.rint(rgb(picture, info)).astype(np.uint8) for picture in pictures[:most]]))

    def nvc(name: str) -> Once:
        settings = Settings(structure=STRUCTURES[name], threads=options.threads)
        return lambda: ours(pictures[: counts[name]], info, settings)

    def other(model: str) -> Once:
        return lambda: others[model].once(file, counts[model])

    runs = {name: nvc(name) for name in STRUCTURES} | {model: other(model) for model in others}
    made, left_out = in_turn(runs, options.repeats)
    shown = {name: summary(seen, counts[name], info.width * info.height) for name, seen in made.items()}
    return {"clip": SIZES[size], **shown, **({"left_out": left_out} if left_out else {})}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/test"), help="folder of the test clips")
    parser.add_argument("--others", default=str(ROOT / ".venv-others/bin/python"), help="Python that has CompressAI")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each (all cores)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--pictures", type=int, default=0, help="at most so many of each codec, for a quick look")
    parser.add_argument("--sizes", nargs="+", choices=AT, default=AT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codec.get("nvc").warm()
    about = {**machine(), "threads": options.threads}
    result: dict[str, Any] = {"command": " ".join(["python -m bench.speed", *sys.argv[1:]]), "machine": about,
                              "model_sha256": load_model(DEFAULT_MODEL).sha256, "repeats": options.repeats}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        others: dict[str, Other] = {}
        if Path(options.others).exists():
            for model in OTHERS:
                others[model] = stack.enter_context(Other(options.others, model, options.threads))
        else:
            result["left_out"] = "CompressAI: no environment with bench/requirements-others.txt (--others)"
        result["speed"] = {size: at(size, options, Path(folder), others) for size in options.sizes}
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
