"""Make the frozen streams of this version again: python tests/make_streams.py (after a change of format or weights,
and only then).

Small streams over sizes (odd ones too), structures, qualities and kinds of tiles, and the SHA-256 of their pictures.
They are part of the format: a decoder that gives other pictures is wrong. Streams of earlier versions, whose names end
in another number or in none, cannot be made any more, and stay as they are. And the streams that fuzzing begins with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from synthetic import faded, info_of, moving, screen, sha_of
from test_syntax import sign_again, small_stream

import codec
from coding.interface import Settings
from nvc.network.planes import crop
from nvc.stream.reading import parse

FOLDER = Path(__file__).resolve().parent / "streams"
SEEDS = FOLDER.parent / "corpora" / "stream"
CASES = {       # name: pictures, settings
    "moving-6": (moving(9, 96, 64), Settings(quality=24)),
    "positions-6": (moving(3, 80, 96), Settings(quality=30, model="nvc-1-msssim")),
    "fade-6": (faded(moving(9, 64, 48)), Settings(quality=24)),
    "odd-6": ([crop(picture, 61, 43) for picture in moving(3, 62, 44)], Settings(quality=34, structure="intra")),
    "screen-6": (screen(17), Settings(quality=32)),
    "screen-low-delay-6": (screen(5), Settings(quality=8, structure="low_delay")),
    "screen-effort-1-6": (screen(5), Settings(quality=40, effort=1)),
    "screen-odd-6": ([crop(picture, 91, 59) for picture in screen(4)], Settings(quality=20, structure="intra")),
    "still-6": (moving(1, 96, 80) * 9, Settings(quality=30)),
}


def main() -> None:
    pictures = json.loads((FOLDER / "pictures.json").read_text())
    for name, (clip, settings) in CASES.items():
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
