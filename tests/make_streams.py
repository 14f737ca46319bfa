"""Make the frozen streams again: python tests/make_streams.py (after a change of format or weights, and only then).

A dozen small streams over sizes (odd ones too), structures and qualities, and the SHA-256 of their pictures. They are
part of the format: a decoder that gives other pictures is wrong. And the streams that fuzzing begins with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from synthetic import faded, info_of, moving, sha_of
from test_syntax import sign_again, small_stream

import codec
from coding.interface import Settings
from nvc.stream.reading import parse
from video.picture import Picture

FOLDER = Path(__file__).resolve().parent / "streams"
SEEDS = FOLDER.parent / "corpora" / "stream"
CASES = {       # name: width, height, pictures, cut, settings
    "intra-low": (64, 64, 3, None, Settings(quality=4, structure="intra")),
    "intra-high": (64, 48, 2, None, Settings(quality=60, structure="intra")),
    "one-picture": (96, 80, 1, None, Settings(quality=30)),
    "two-pictures": (48, 64, 2, None, Settings(quality=30)),
    "low-delay": (80, 64, 7, None, Settings(quality=28, structure="low_delay")),
    "random-access": (96, 64, 17, None, Settings(quality=24)),
    "short-period": (64, 64, 9, None, Settings(quality=20, intra_period=4)),
    "scene-cut": (96, 80, 12, 5, Settings(quality=24)),
    "fade": (64, 48, 9, None, Settings(quality=24)),
    "odd": (61, 43, 6, None, Settings(quality=34)),
    "narrow": (5, 77, 4, None, Settings(quality=40)),
    "flat": (150, 9, 4, None, Settings(quality=16)),
    "highest": (48, 48, 5, None, Settings(quality=63)),
    "lowest": (96, 96, 5, None, Settings(quality=0)),
    "steps-of-positions": (80, 96, 9, None, Settings(quality=30, model="nvc-1-msssim")),
}


def clip_of(width: int, height: int, frames: int, cut: int | None) -> list[Picture]:
    h, w = (height + 1) // 2, (width + 1) // 2
    return [Picture(p.y[:height, :width].copy(), p.u[:h, :w].copy(), p.v[:h, :w].copy())
            for p in moving(frames, width + width % 2, height + height % 2, cut)]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.nvc"):
        old.unlink()
    pictures = {}
    for name, (width, height, frames, cut, settings) in CASES.items():
        clip = clip_of(width, height, frames, cut)
        if name == "fade":
            clip = faded(clip)
        encoded = codec.get("nvc").encode(clip, info_of(clip), settings)
        assert sha_of(codec.get("nvc").decode(encoded.data)) == encoded.pictures_sha256
        (FOLDER / f"{name}.nvc").write_bytes(encoded.data)
        pictures[f"{name}.nvc"] = encoded.pictures_sha256
        print(f"{name:16s} {len(encoded.data):6d} bytes")
    (FOLDER / "pictures.json").write_text(json.dumps(pictures, indent=1) + "\n")
    make_seeds()


def make_seeds() -> None:
    """A stream of no content, whole, cut, twice, and damaged with checks that fit."""
    whole = small_stream()
    stream, header, gop = parse(whole), bytearray(whole), bytearray(whole)
    header[13] ^= 1
    gop[stream.gops[0].offset + 10] ^= 1
    seeds = {"small": whole, "twice": 2 * whole, "cut": whole[:len(whole) * 2 // 3],
             "header-damaged-and-signed": sign_again(stream, header), "gop-damaged-and-signed": sign_again(stream, gop)}
    for name, data in seeds.items():
        (SEEDS / f"{name}.nvc").write_bytes(data)


if __name__ == "__main__":
    main()
