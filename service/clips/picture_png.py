"""One picture of a clip or reconstruction as PNG, or the error between two, made by a process under limits.

Videos are parsed only there, as in probe.py, whose limits hold here too. An error map has a grey for each sample of
luma: black where the two are equal, white from `WHITE` levels of difference on.
"""

import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from service.clips.probe import ENVIRONMENT, WALL_S, limit_this_process

AT_ONCE = 2             # a page turns pictures faster than they are decoded; others must still find a processor
WHITE = 32              # levels of luma
TOP = Path(__file__).resolve().parents[2]
START = ("import sys; sys.path.insert(0, sys.argv[1]); from service.clips import picture_png; "
         "sys.exit(picture_png.main(sys.argv[2:]))")


class NoPicture(Exception):
    """There is no such picture, or it could not be made; the text says why."""


class Busy(Exception):
    """As many pictures are being made as may be."""


_slots = threading.BoundedSemaphore(AT_ONCE)


def make(first: tuple[Path, int], second: tuple[Path, int] | None = None) -> bytes:
    """PNG of a file's picture by index; with a `second`, of the error between the two. Raises NoPicture, Busy."""
    words = [str(word) for pair in (first, second) if pair is not None for word in pair]
    if not _slots.acquire(blocking=False):
        raise Busy(f"{AT_ONCE} pictures are being decoded; try again in a moment")
    try:
        done = subprocess.run([sys.executable, "-I", "-c", START, str(TOP), *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=WALL_S, env=ENVIRONMENT, check=False)
    except subprocess.TimeoutExpired:
        raise NoPicture(f"decoding it took longer than {WALL_S:g} s") from None
    finally:
        _slots.release()
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip().splitlines() if done.returncode == 3 else []
    raise NoPicture(said[-1] if said else f"decoding it ended with exit code {done.returncode}, which limits on memory "
                    "and time also cause")


def main(words: Sequence[str]) -> int:
    """PATH INDEX [PATH INDEX], in the process under limits: PNG on standard output. Exit code 3: no such picture."""
    limit_this_process()
    import numpy as np
    from PIL import Image

    from video.files import open_clip
    from video.picture import VideoError
    from video.rgb import rgb

    def look(path: str, index: int) -> tuple[Any, Any]:
        with open_clip(path) as clip:
            picture = next(islice(iter(clip), index, None), None)
            if picture is None:
                raise VideoError(f"there is no picture {index}")
            return picture, clip.info

    try:
        read = [look(path, int(index)) for path, index in zip(words[::2], words[1::2], strict=True)]
    except VideoError as error:
        print(error, file=sys.stderr)
        return 3
    if len(read) == 1:
        shown = rgb(*read[0]).round().astype(np.uint8)
    else:
        a, b = (picture.y.astype(np.int16) for picture, _ in read)
        if a.shape != b.shape:
            print("the two have different sizes", file=sys.stderr)
            return 3
        shown = (np.abs(a - b) * 255 // WHITE).clip(0, 255).astype(np.uint8)
    Image.fromarray(shown).save(sys.stdout.buffer, "png")
    return 0
