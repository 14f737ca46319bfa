"""Batches: photographs and video pictures to code as I; picture triples with motion-compensated predictions for P, B.

A sample file is raw uint8 records [3, 6, 128, 128] (picture, first prediction, second prediction; packed planes of a
256×256 picture) beside a text file with a line a record: step index t of the picture, type (1 P, 2 B), distance of the
references, name of the source. train/samples.py writes them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 128                      # planes of a 256×256 picture


@dataclass
class Batch:
    x: Tensor       # [B, 6, 128, 128] float32, 0 … 255
    p0: Tensor
    p1: Tensor
    kind: Tensor    # [B] int64
    t: Tensor       # [B] float32


def pack(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Planes [6, H/2, W/2] of a picture with even sizes."""
    h, w = y.shape
    phases = y.reshape(h // 2, 2, w // 2, 2).transpose(1, 3, 0, 2).reshape(4, h // 2, w // 2)
    return np.concatenate([phases, u[None], v[None]])


def photograph(path: Path) -> np.ndarray:
    """A picture file as limited-range BT.601 planes, at least 128×128, reflected where smaller."""
    rgb = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    h, w = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    rgb = rgb[:h, :w]
    y = 16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255
    u = 128 + rgb @ np.array([-37.797, -74.203, 112.0]) / 255
    v = 128 + rgb @ np.array([112.0, -93.786, -18.214]) / 255
    half = [c.reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for c in (u, v)]
    planes = pack(y, *half)
    grow = [(0, max(0, SIDE - planes.shape[k])) for k in (1, 2)]
    return np.round(np.pad(planes, [(0, 0), *grow], mode="symmetric")).clip(0, 255).astype(np.uint8)


class Samples:
    """Sample files, read whole (about 3 400 samples a GB), and photographs; `batch` draws from them."""

    def __init__(self, files: list[Path], photos: Path, seed: int) -> None:
        # Not memory-mapped: a page cache that the system reclaims costs a disk read for each sample.
        self.random = random.Random(seed)
        self.parts = [np.fromfile(f, np.uint8).reshape(-1, 3, 6, SIDE, SIDE) for f in files]
        self.rows: list[tuple[int, int, int, int, int]] = []            # part, record, t, type, distance
        for part, f in enumerate(files):
            for record, line in enumerate(f.with_suffix(".txt").read_text().splitlines()[: len(self.parts[part])]):
                t, kind, distance = (int(v) for v in line.split()[:3])
                self.rows.append((part, record, t, kind, distance))
        self.photos = [photograph(f) for f in sorted(photos.glob("*.webp"))]

    def batch(self, intra: int, inter: int) -> Batch:
        r = self.random
        x: list[np.ndarray] = []
        kinds: list[int] = []
        steps: list[float] = []
        for k in range(intra):
            if k % 2 == 0 or r.random() < 0.4:
                photo = r.choice(self.photos)
                a, b = (r.randint(0, photo.shape[k] - SIDE) for k in (1, 2))
                picture = photo[:, a:a + SIDE, b:b + SIDE]
            else:
                part, record, *_ = r.choice(self.rows)
                picture = self.parts[part][record, 0]
            grey = np.full_like(picture, 128)
            x.append(self.turned(np.stack([picture, grey, grey])))
            kinds.append(0)
            steps.append(r.uniform(0, 100))
        for _ in range(inter):
            part, record, t, kind, _ = r.choice(self.rows)
            triple = self.turned(self.parts[part][record])
            x.append(triple[[0, 2, 1]] if r.random() < 0.5 else triple)
            kinds.append(kind)
            steps.append(t + r.gauss(0, 2.0))
        a = torch.from_numpy(np.stack(x)).float()
        planes = [a[:, k].contiguous(memory_format=torch.channels_last) for k in range(3)]
        t_ = torch.tensor(steps).round().clamp(0, 126)
        return Batch(planes[0], planes[1], planes[2], torch.tensor(kinds), t_)

    def turned(self, a: np.ndarray) -> np.ndarray:
        """Mirrored at random; the phases of Y change places with it."""
        if self.random.random() < 0.5:
            a = a[:, [1, 0, 3, 2, 4, 5]][:, :, :, ::-1]
        if self.random.random() < 0.5:
            a = a[:, [2, 3, 0, 1, 4, 5]][:, :, ::-1]
        return a
