"""Clips of what screens show, rendered here: python -m bench.screens FOLDER

    scrolling   a page of text that moves up by four lines of pixels a picture, beside a menu that stands still
    slide       a still slide: title, text, a chart, a soft shade behind them
    cartoon     flat shapes with outlines that move before a painted ground

They are for `bench.rd` and for tuning (docs/decisions, 19). Written as YUV4MPEG2, 640×360, 4:2:0, BT.601 limited,
33 pictures; the same bytes on every machine with the same Pillow.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from video.picture import ClipInfo
from video.pixels import rgb_to_420
from video.planar import Y4MWriter

WIDTH, HEIGHT, PICTURES, MATRIX = 640, 360, 33, "bt601"
WORDS = ("rate", "distortion", "picture", "block", "vector", "sample", "filter", "stream", "queue", "worker",
         "result", "clip", "codec", "level", "step", "scale", "of", "the", "and", "to", "in", "is", "for", "each",
         "that", "where", "which", "one", "two", "more", "less", "than", "under", "over", "before", "after")


def text_of(seed: int, lines: int, words: int) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choice(WORDS) for _ in range(words)) for _ in range(lines)]


def scrolling() -> Iterator[Image.Image]:
    font = ImageFont.load_default(13)
    page = Image.new("RGB", (WIDTH - 130, HEIGHT + 4 * PICTURES), (252, 252, 250))
    draw = ImageDraw.Draw(page)
    for k, line in enumerate(text_of(1, 40, 12)):
        draw.text((10, 6 + 17 * k), line, (25, 25, 30) if k % 7 else (20, 70, 170), font=font)
    menu = Image.new("RGB", (130, HEIGHT), (44, 52, 68))
    for k, word in enumerate(WORDS[:16]):
        ImageDraw.Draw(menu).text((12, 10 + 21 * k), word.title(), (225, 230, 240), font=font)
    for k in range(PICTURES):
        screen = Image.new("RGB", (WIDTH, HEIGHT))
        screen.paste(page.crop((0, 4 * k, WIDTH - 130, 4 * k + HEIGHT)), (130, 0))
        screen.paste(menu, (0, 0))
        yield screen


def slide() -> Iterator[Image.Image]:
    shade = np.linspace(238, 255, HEIGHT)[:, None] * np.ones((1, WIDTH))
    still = Image.fromarray(np.stack([shade - 6, shade - 2, shade], 2).astype(np.uint8))
    draw = ImageDraw.Draw(still)
    draw.text((40, 24), "Rate and distortion", (20, 40, 90), font=ImageFont.load_default(34))
    for k, line in enumerate(text_of(2, 6, 6)):
        draw.text((60, 90 + 30 * k), f"• {line}", (40, 40, 48), font=ImageFont.load_default(17))
    for k in range(6):
        height = 30 + 22 * k
        draw.rectangle((420 + 32 * k, 320 - height, 444 + 32 * k, 320), (60 + 25 * k, 120, 200 - 20 * k))
    draw.line((412, 320, 620, 320), (30, 30, 30), 2)
    for _ in range(PICTURES):
        yield still


def cartoon() -> Iterator[Image.Image]:
    painted = np.random.default_rng(3).normal(0, 1, (HEIGHT // 40, WIDTH // 40, 3))
    ground = Image.fromarray(np.clip(painted * 14 + [150, 190, 140], 0, 255).astype(np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    for k in range(PICTURES):
        picture = ground.resize((2 * WIDTH, 2 * HEIGHT))
        draw = ImageDraw.Draw(picture)
        for n, colour in enumerate(((230, 80, 60), (250, 210, 70), (70, 120, 220))):
            x, y = 2 * (100 + 170 * n + 3 * k * (1, -1, 2)[n]), 2 * (180 + 40 * math.sin(k / 5 + n))
            draw.ellipse((x - 90, y - 120, x + 90, y + 120), colour, (20, 20, 20), 6)
            draw.ellipse((x - 40, y - 70, x - 10, y - 30), (255, 255, 255), (20, 20, 20), 4)
            draw.ellipse((x + 10, y - 70, x + 40, y - 30), (255, 255, 255), (20, 20, 20), 4)
            draw.arc((x - 40, y, x + 40, y + 60), 20, 160, (20, 20, 20), 6)
        yield picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


KINDS: dict[str, Callable[[], Iterator[Image.Image]]] = {"scrolling": scrolling, "slide": slide, "cartoon": cartoon}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.screens", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the clips are written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, render in KINDS.items():
        with (folder / f"{name}.y4m").open("wb") as file:
            writer = Y4MWriter(file, ClipInfo(WIDTH, HEIGHT, Fraction(25), PICTURES, MATRIX))
            for picture in render():
                writer.write(rgb_to_420(np.asarray(picture), 8, MATRIX))
    return 0


if __name__ == "__main__":
    sys.exit(main())
