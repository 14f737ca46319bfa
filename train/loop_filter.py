"""Weights of the loop filter, by least squares: what decoded pictures lack, from the differences that the filter sees.

    python -m train.loop_filter gather --clips DIR ... --out SUMS.npz --model nvc-1 --minutes M
    python -m train.loop_filter solve SUMS.npz ... --out NAME.safetensors

`gather` codes clips and photographs at random qualities in the codec's own loop, with the filter that there is, and
adds up normal equations, those of each class by themselves; every picture counts the same, whatever its error is.
`solve` adds up files, lends each band of steps what its neighbours saw and each picture type a little of the others,
and rounds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from coding.interface import Settings
from nvc.encoder.clip import gops_of
from nvc.encoder.encode import Encoder, step_index
from nvc.encoder.gop import code_gop
from nvc.encoder.sources.structure import Unit
from nvc.loop_filter.filter import BAND, BANDS, COMPONENTS, WEIGHTS, LoopFilter
from nvc.loop_filter.kernels import BLOCK, FRACTION, TAPS
from nvc.loop_filter.planes import CLASSES, EDGE, classify, limits_of
from nvc.network.model import load_model
from nvc.network.network import TYPES
from nvc.stream.syntax import Header
from video.files import open_clip
from video.picture import Picture

SHAPE = (COMPONENTS, len(TYPES), BANDS, CLASSES)
PICTURES = 17               # of a clip
B_SHARE = 0.4               # of B pictures that are looked at
NEAR = 0.15                 # what a neighbouring band counts, and what another picture type does
RIDGE = 1e-3                # of the mean diagonal
FEWEST = 200.0              # samples that a weight of one limit's square is worth


def features(plane: NDArray[np.uint8], t: int) -> NDArray[np.float32]:
    """What weights are multiplied by, [H, W, WEIGHTS]: see nvc/loop_filter/planes.py."""
    height, width = plane.shape
    padded = np.pad(plane.astype(np.int16), EDGE, mode="edge")

    def at(y: int, x: int) -> NDArray[np.int16]:
        return padded[EDGE + y:EDGE + y + height, EDGE + x:EDGE + x + width]

    made = []
    for y, x in TAPS:
        pair = [at(y, x) - at(0, 0), at(-y, -x) - at(0, 0)]
        made += [sum(np.clip(v, -limit, limit) for v in pair) for limit in limits_of(t)]
    return np.stack(made, -1).astype(np.float32)


class Sums:
    """Normal equations of each class: products of features [.., WEIGHTS, WEIGHTS], and with what is lacking."""

    def __init__(self) -> None:
        self.products = np.zeros((*SHAPE, WEIGHTS, WEIGHTS))
        self.wanted = np.zeros((*SHAPE, WEIGHTS))

    def add(self, component: int, kind: int, t: int, made: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        """Learn from a plane of one picture."""
        lacking = source.astype(np.float32) - made
        error = max(float((lacking ** 2).mean()), 0.1)
        classes = classify(made, t).repeat(BLOCK, 0).repeat(BLOCK, 1).ravel()
        order = np.argsort(classes, kind="stable")
        ends = np.searchsorted(classes[order], np.arange(CLASSES + 1))
        rows, lacking = features(made, t).reshape(-1, WEIGHTS)[order], lacking.ravel()[order]
        for k in np.flatnonzero(np.diff(ends)):
            part = slice(ends[k], ends[k + 1])
            where = component, kind, t // BAND, k
            self.products[where] += rows[part].T @ rows[part] / error
            self.wanted[where] += rows[part].T @ lacking[part] / error


class Gathering(Encoder):
    """Learns from every picture before it is filtered."""

    sums: Sums
    chance: random.Random

    def _filtered(self, unit: Unit, coder: Any, source: Picture, made: Picture, coded: NDArray[np.bool_]) -> Picture:
        if coded.mean() > 0.5 and (unit.type != "B" or self.chance.random() < B_SHARE):
            kind, t = TYPES[unit.type], self.q(unit)
            for component, name in ((0, "y"), (1, "u"), (1, "v")):
                self.sums.add(component, kind, t, getattr(made, name), getattr(source, name))
        return super()._filtered(unit, coder, source, made, coded)


def gather(folders: Sequence[Path], model_name: str, minutes: float, seed: int) -> Sums:
    """Code clips and photographs, in an order by chance, until the time is over."""
    model = load_model(model_name)
    if model.loop_filter is None:
        model = replace(model, loop_filter=LoopFilter(np.zeros((*SHAPE, WEIGHTS), np.int16)))
    chance, sums, end = random.Random(seed), Sums(), time.time() + 60 * minutes
    paths = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".mp4", ".webp"))
    while time.time() < end:
        chance.shuffle(paths)
        for path in paths:
            if time.time() > end:
                break
            with open_clip(path) as clip:
                info = clip.info
                pictures = [picture for picture, _ in zip(clip, range(PICTURES), strict=False)]
            settings = Settings(quality=chance.randrange(64), effort=0, model=model_name)
            header = Header.of(info, model.id, settings.structure, settings.intra_period)
            encoder = Gathering(model, settings, step_index(settings.quality))
            encoder.sums, encoder.chance = sums, chance
            for first, padded in gops_of(pictures, settings):
                for _ in code_gop(encoder, header, first, padded):
                    pass
            print(path.stem, settings.quality, flush=True)
    return sums


def solve(products: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int16]:
    """Weights of the loop filter from normal equations of all files."""
    def lent(a: NDArray[np.float64]) -> NDArray[np.float64]:
        bands = a.copy()
        bands[:, :, 1:] += NEAR * a[:, :, :-1]
        bands[:, :, :-1] += NEAR * a[:, :, 1:]
        return bands + NEAR * (bands.sum(1, keepdims=True) - bands)

    a, b = lent(products), lent(wanted)
    diagonal = np.einsum("...ii->...i", a)
    ridge = RIDGE * diagonal.mean(-1, keepdims=True) + FEWEST
    found = np.linalg.solve(a + np.eye(WEIGHTS) * ridge[..., None], b[..., None])[..., 0]
    limit = np.iinfo(np.int16).max
    return np.clip(np.rint(found * (1 << FRACTION)), -limit, limit).astype(np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("gather", help="code clips and add up normal equations")
    one.add_argument("--clips", type=Path, nargs="+", required=True)
    one.add_argument("--model", default="nvc-1")
    one.add_argument("--minutes", type=float, default=10.0)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("solve", help="make weights of them")
    two.add_argument("sums", type=Path, nargs="+")
    two.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "gather":
        sums = gather(options.clips, options.model, options.minutes, options.seed)
        np.savez(options.out, products=sums.products, wanted=sums.wanted)
        return
    files = [np.load(path) for path in options.sums]
    weights = solve(sum(f["products"] for f in files), sum(f["wanted"] for f in files))
    save_file({"weights": weights}, options.out)


if __name__ == "__main__":
    main()
