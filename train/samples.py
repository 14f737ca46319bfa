"""Training samples from the codec's own loop.

    python -m train.samples --clips DIR --out FILE.bin --weights NAME.safetensors --minutes M

Codes each clip at a random step and structure with the weights given, and writes every P and B picture with the two
predictions that the encoder found for it in its own decoded pictures: what the networks will meet when they serve.
The format is that of train/data.py. Sides other than 256 are cut to their middle 256.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch

import nvc.model
from nvc.encode import Encoder
from nvc.planes import pack
from nvc.structure import Planner, Unit, schedule
from picture import Picture
from train.data import SIDE
from video import open_clip


def middle(planes: np.ndarray) -> np.ndarray:
    a, b = ((planes.shape[k] - SIDE) // 2 // 2 * 2 for k in (1, 2))
    return planes[:, a:a + SIDE, b:b + SIDE]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--clips", type=Path, required=True)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--weights", type=Path, required=True, help="exported weights, NAME.safetensors")
    a.add_argument("--minutes", type=float, required=True)
    a.add_argument("--seed", type=int, default=0)
    o = a.parse_args()
    torch.set_num_threads(1)
    nvc.model.FOLDER = o.weights.parent
    model = nvc.model.load_model(o.weights.stem)
    r = random.Random(o.seed)
    clips: list[Path] = []
    count, deadline = 0, time.monotonic() + 60 * o.minutes
    with o.out.open("wb") as records, o.out.with_suffix(".txt").open("w") as rows:
        while time.monotonic() < deadline:
            if not clips:
                clips = sorted(o.clips.glob("*.mp4"))
                r.shuffle(clips)
            path = clips.pop()
            with open_clip(path) as clip:
                pictures = list(clip)
            if r.random() < 0.5:
                pictures.reverse()
            t = r.uniform(2, 96)
            encoder = Encoder(model, nvc.encode.Settings(), t)
            planner = (Planner("low_delay") if r.random() < 0.15 else
                       Planner("random_access", mini_gop=r.choice((4, 8, 16, 16, 16))))

            def observe(unit: Unit, picture: Picture, pair: tuple[Picture, Picture] | None,
                        encoder: Encoder = encoder, path: Path = path) -> None:
                nonlocal count
                if pair is None:
                    return
                triple = np.stack([middle(pack(p)) for p in (picture, *pair)])
                records.write(triple.tobytes())
                distance = max(abs(unit.number - n) for n in unit.references)
                rows.write(f"{encoder.q(unit)} {len(unit.references)} {distance} {path.name}\n")
                count += 1

            encoder.observe = observe
            for batch in schedule(pictures, planner):
                for _ in encoder.encode(batch):
                    pass
                for unit, _ in batch:
                    for number in unit.drop:
                        encoder.frames.pop(number, None)
    print(f"{count} samples")


if __name__ == "__main__":
    main()
