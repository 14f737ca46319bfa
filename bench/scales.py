"""Fit the peers' scales to nvc's: python -m bench.scales [FOLDER] > bench/results/scales.json

Equal `quality` should give about equal PSNR (YUV 6:1:1) in every codec, so that the curves of a sweep share their
range.  Clips of FOLDER (training clips: never those that figures are reported on) are coded by nvc at QUALITIES, and by
each peer at constant qualities (CRF or QP) over its whole scale.  `fitted` has, for each of QUALITIES, the CRF or QP at
which the mean PSNR over the clips is nvc's; peers/kinds.py holds that table.  `difference_db` is measured with the
table that the program has: the mean over clips and QUALITIES of how far a peer's PSNR lies from nvc's at the same
quality, as `mean` (with its sign) and `absolute`; `by_quality` has the differences of the means over clips.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from coding import registry
from coding.interface import Settings
from metrics import ClipMetrics
from peers.kinds import KINDS, QUALITIES
from video import library
from video.files import open_clip
from video.picture import ClipInfo, Picture

STEPS = 17  # constant qualities of each peer, from the worst to the best
Clip = tuple[list[Picture], ClipInfo]


def psnr_of(name: str, clip: Clip, settings: Settings) -> float:
    pictures, info = clip
    coder = registry.get(name)
    total = ClipMetrics(["psnr"])
    for source, decoded in zip(pictures, coder.decode(coder.encode(pictures, info, settings).data), strict=True):
        total.add(source, decoded)
    return float(total.summary()["psnr"])


def read(path: Path, frames: int) -> Clip:
    with open_clip(path) as clip:
        pictures = list(islice(clip, frames))
        return pictures, clip.info


def fit(constants: np.ndarray, mine: np.ndarray, wanted: np.ndarray) -> list[float]:
    """The constant quality at which the mean over clips is the wanted one.  constants [n], falling: ever better; mine
    [clips, n] dB; wanted [clips, qualities] dB."""
    means = np.maximum.accumulate(mine.mean(0))
    return [round(float(value), 1) for value in np.interp(wanted.mean(0), means, constants)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="training clips; without it the library's")
    parser.add_argument("--clips", type=int, default=8, help="so many, spread over the folder; default %(default)s")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--peers", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    paths = [library.find(name) for name in library.names()] if options.folder is None else sorted(
        path for path in options.folder.iterdir() if path.suffix in (".mp4", ".mkv", ".webm", ".y4m"))
    paths = [paths[n] for n in sorted({n * len(paths) // options.clips for n in range(options.clips)})]
    clips = [read(path, options.frames) for path in paths]

    def table(name: str, runs: list[Settings]) -> np.ndarray:
        found = np.array([[psnr_of(name, clip, run) for run in runs] for clip in clips])
        print(name, found.mean(0).round(2).tolist(), file=sys.stderr, flush=True)
        return found

    same = [Settings(quality=quality, threads=1) for quality in QUALITIES]
    wanted = table("nvc", same)
    peers: dict[str, Any] = {}
    for name in options.peers:
        kind = KINDS[name]
        constants = np.linspace(kind.worst, 0, STEPS).round() if kind.whole else np.linspace(kind.worst, 0, STEPS)
        mine = table(name, [Settings(threads=1, options={kind.constant: value}) for value in constants.tolist()])
        apart = table(name, same) - wanted
        peers[name] = {"fitted": fit(constants, mine, wanted), "scale": list(kind.scale), "difference_db": {
            "mean": round(float(apart.mean()), 2), "absolute": round(float(np.abs(apart).mean()), 2),
            "by_quality": np.abs(apart.mean(0)).round(2).tolist()}}
    print(json.dumps({"command": "python -m bench.scales FOLDER", "clips": [path.name for path in paths],
                      "frames": options.frames, "qualities": list(QUALITIES),
                      "nvc_psnr_db": wanted.mean(0).round(2).tolist(), "peers": peers}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
