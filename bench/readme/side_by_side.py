"""The picture of the README: one of a clip, its source beside x264 and nvc at the bit rate that x264 took.

    python -m bench.readme.side_by_side [docs/pictures/side-by-side.png]
        [--clip bikes --first 150 --picture 20 --mbps 0.15]

Prints the rates and PSNR of both as JSON, as every bench does.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import codec
from coding.interface import Settings
from metrics import ClipMetrics
from video import library
from video.files import open_clip
from video.rgb import rgb

FRAMES = 33
CROP = (160, 40, 480, 272)  # left, top, right, bottom
GAP = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/pictures/side-by-side.png"))
    parser.add_argument("--clip", default="bikes")
    parser.add_argument("--first", type=int, default=150)
    parser.add_argument("--picture", type=int, default=20)
    parser.add_argument("--mbps", type=float, default=0.15)
    o = parser.parse_args()
    with open_clip(library.find(o.clip)) as clip:
        pictures, info = list(islice(clip, o.first, o.first + FRAMES)), clip.info
    shown, found = [("source", pictures[o.picture])], {}
    wanted = o.mbps
    for name in ("x264", "nvc"):
        coder = codec.get(name)
        encoded = coder.encode(pictures, info, Settings(bitrate_mbps=wanted, threads=2))
        decoded, total = list(coder.decode(encoded.data)), ClipMetrics()
        for source, picture in zip(pictures, decoded, strict=True):
            total.add(source, picture)
        size = encoded.details.get("rate_bytes", len(encoded.data))
        rate, psnr = size * 8e-6 * float(info.fps) / FRAMES, total.summary()["psnr"]
        wanted = rate
        found[name] = {"bitrate_mbps": round(rate, 4), "psnr_db": round(psnr, 2)}
        shown.append((f"{name}  {rate:.3f} Mbit/s  {psnr:.1f} dB", decoded[o.picture]))
    left, top, right, bottom = CROP
    width, height = right - left, bottom - top
    sheet = Image.new("RGB", (len(shown) * (width + GAP) - GAP, height + 18), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (words, picture) in enumerate(shown):
        image = Image.fromarray(rgb(picture, info).round().astype(np.uint8)).crop(CROP)
        sheet.paste(image, (place * (width + GAP), 18))
        draw.text((place * (width + GAP) + 2, 3), words, fill="black")
    o.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(o.out, optimize=True)
    print(json.dumps({"command": "python -m bench.readme.side_by_side", "clip": o.clip, "frames": FRAMES, **found},
                     indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
