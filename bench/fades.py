"""Where light changes: clips made of a real one, by nvc and by what its users would take instead, and BD-rates.

    python -m bench.fades [CLIP] > bench/results/fades.json

to-black      fades to black over all its pictures
into-mirror   fades into its own mirror image
flashes       two of its pictures are brighter by a third

Measured as in bench/rd.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import rd
from video import library
from video.files import open_clip
from video.picture import Picture
from video.planar import Y4MWriter

BLACK, GREY = 16.0, 128.0       # of limited range; chroma


def brighter(plane: NDArray[np.float32], black: float, gain: float) -> NDArray[np.float32]:
    """A plane with its distance from black, or from grey, times the gain."""
    return black + gain * (plane - black)


def changed(picture: Picture, change: Callable[[NDArray[np.float32], float], NDArray[np.float32]]) -> Picture:
    """change(plane, its black) of each plane, rounded and clipped."""
    planes = (change(plane.astype(np.float32), BLACK if k == 0 else GREY) for k, plane in enumerate(picture))
    return Picture(*(np.rint(plane).clip(0, 255).astype(np.uint8) for plane in planes))


def to_black(pictures: list[Picture]) -> list[Picture]:
    shares = np.linspace(1.0, 0.0, len(pictures))
    return [changed(p, partial(brighter, gain=share)) for p, share in zip(pictures, shares, strict=True)]


def mirrored(plane: NDArray[np.float32], _: float, share: float) -> NDArray[np.float32]:
    """That share of a plane, and of its mirror image the rest."""
    return share * plane + (1 - share) * plane[:, ::-1]


def into_mirror(pictures: list[Picture]) -> list[Picture]:
    shares = np.linspace(1.0, 0.0, len(pictures))
    return [changed(p, partial(mirrored, share=share)) for p, share in zip(pictures, shares, strict=True)]


def flashes(pictures: list[Picture]) -> list[Picture]:
    bright = {len(pictures) // 3, 2 * len(pictures) // 3}
    return [changed(p, partial(brighter, gain=4 / 3)) if k in bright else p for k, p in enumerate(pictures)]


MADE = {"to-black": to_black, "into-mirror": into_mirror, "flashes": flashes}


def write(source: Path, frames: int, folder: Path) -> None:
    """The clips of MADE, as Y4M."""
    with open_clip(source) as clip:
        info, pictures = clip.info, [picture for _, picture in zip(range(frames), clip, strict=False)]
    for name, make in MADE.items():
        with (folder / f"{source.stem}-{name}.y4m").open("wb") as out:
            writer = Y4MWriter(out, info)
            for picture in make(pictures):
                writer.write(picture)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fades", description="Where light changes, as JSON.")
    parser.add_argument("clip", metavar="CLIP", type=Path, nargs="?", help="default: a test clip, or the library's")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--processes", type=int, default=1, help="clips measured at a time (1)")
    options = parser.parse_args()
    usual = rd.TEST_CLIPS / "foreman_cif.mp4"
    source = options.clip or (usual if usual.exists() else library.find("carphone"))
    with tempfile.TemporaryDirectory() as folder:
        write(source, options.frames, Path(folder))
        arguments = [folder, "--only", "video", "--frames", str(options.frames), "--processes", str(options.processes),
                     "--qualities", "8", "24", "40", "56"]
        result = rd.measured(rd.parser().parse_args(arguments), " ".join(["python -m bench.fades", *sys.argv[1:]]))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
