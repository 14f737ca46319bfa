"""Training samples from the codec's own loop.

    python -m train.samples --clips DIR --out FILE.bin --weights NAME.safetensors --minutes M

Codes each clip at a random step and structure with the weights given, and writes every P and B picture with the two
predictions that the encoder found for it in its own decoded pictures: what the networks will meet when they serve.
With --x264 it finds them in pictures that x264 decoded, each at the step that its level would have had. The format is
that of train/data.py. Sides other than 256 are cut to their middle 256.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

import codec
import nvc.network.model
from nvc.decoder import Frame, Moved
from nvc.encoder.encode import Encoder, Settings, Tally
from nvc.encoder.sources.structure import Planner, Unit, schedule
from nvc.entropy import range_coder
from nvc.network.model import Model
from nvc.network.planes import pack
from nvc.stream.syntax import Packet
from train.data import SIDE
from video.files import open_clip
from video.picture import ClipInfo, Picture


def middle(planes: np.ndarray) -> np.ndarray:
    a, b = ((planes.shape[k] - SIDE) // 2 // 2 * 2 for k in (1, 2))
    return planes[:, a:a + SIDE, b:b + SIDE]


def by_x264(pictures: Sequence[Picture], qp: int) -> list[Picture]:
    """The pictures as x264 gives them back, all at one quantiser."""
    x264, (height, width) = codec.get("x264"), pictures[0].y.shape
    settings = Settings(threads=1, options={"params": f"qp={qp}:ipratio=1:pbratio=1"})
    encoded = x264.encode(pictures, ClipInfo(width, height, Fraction(25), len(pictures)), settings)
    return list(x264.decode(encoded.data))


class Elsewhere(Encoder):
    """Codes nothing: takes what x264 made of a clip's pictures for what it would have decoded itself."""

    def __init__(self, model: Model, t: float, pictures: list[Picture]) -> None:
        super().__init__(model, Settings(), t)
        self.pictures = pictures
        self.decoded: dict[int, list[Picture]] = {}     # by quantiser

    def made(self, unit: Unit, picture: Picture) -> Picture:
        if unit.number in unit.drop:                    # nothing refers to it
            return picture
        qp = min(max(round(6 * math.log2(2.0 ** (self.wanted(unit) / 16.0) / 0.625)), 1), 51)   # of the same step
        if qp not in self.decoded:
            self.decoded[qp] = by_x264(self.pictures, qp)
        return self.decoded[qp][unit.number]

    def _code(self, work: Sequence[tuple[Unit, Picture, Moved[range_coder.Encoder]]]
              ) -> tuple[list[Packet], list[Frame], Tally]:
        frames = [Frame.of(self.made(unit, picture), found.field) for unit, picture, found in work]
        packets = [Packet(unit.number, unit.type, unit.references, self.q(unit)) for unit, *_ in work]
        return packets, frames, Tally()


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--clips", type=Path, required=True)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--weights", type=Path, required=True, help="exported weights, NAME.safetensors")
    a.add_argument("--minutes", type=float, required=True)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--x264", action="store_true", help="references are what x264 decoded")
    o = a.parse_args()
    torch.set_num_threads(1)
    nvc.network.model.FOLDER = o.weights.parent
    model = nvc.network.model.load_model(o.weights.stem)
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
            encoder = Elsewhere(model, t, pictures) if o.x264 else Encoder(model, Settings(), t)
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
