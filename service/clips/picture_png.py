"""Pictures of a clip or reconstruction as PNG: one, the error between two, or many to be played. Made by a process
under limits.

Videos are parsed only there, as in probe.py, whose limits hold here too. An error map has a grey for each sample of
luma: black where the two are equal, white from `WHITE` levels of difference on.
"""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from service.clips.probe import ENVIRONMENT, WALL_S, limit_this_process

MOST_PLAYED = 1000      # pictures that one request plays
PLAYED_AT_ONCE = 4      # two viewers, who look at two clips each
PIECE = 1 << 16         # bytes handed on at a time
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
_players = threading.BoundedSemaphore(PLAYED_AT_ONCE)


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
    raise NoPicture(_complaint(done.returncode, done.stderr))


class Playback:
    """PNG files of a file's pictures from one on, `count` at most, one after the other: bytes, a piece at a time.

    The process that makes them waits while nobody takes them, and ends with `close`. Raises Busy; NoPicture where there
    is no first picture."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        if not _players.acquire(blocking=False):
            raise Busy(f"{PLAYED_AT_ONCE} clips are being played; try again in a moment")
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-I", "-c", START, str(TOP), "play", str(path), str(first), str(count)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        except BaseException:
            _players.release()
            raise
        try:
            self._next = self._read()
        except TimeoutError as error:
            self.close()
            raise NoPicture(str(error)) from None
        if not self._next:
            said, code = self._process.communicate()[1], self._process.returncode
            self.close()
            raise NoPicture(_complaint(code, said))

    def _read(self) -> bytes:
        """The next piece, b"" at the end. Raises TimeoutError where decoding hangs."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready = select.poll()       # select() takes no more than 1,024 open files
        ready.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not ready.poll(1000 * WALL_S):
            raise TimeoutError(f"decoding it took longer than {WALL_S:g} s")
        return os.read(self._process.stdout.fileno(), PIECE)

    def __iter__(self) -> "Playback":
        return self

    def __next__(self) -> bytes:
        """Raises OSError where decoding ended before its time: the answer is then cut short, and seen to be."""
        piece, process = self._next, self._process
        if process is None or not piece:
            self.close()
            raise StopIteration
        self._next = self._read()
        if not self._next and (code := process.wait()):
            self.close()
            raise OSError(_complaint(code, b""))
        return piece

    def close(self) -> None:
        """End the process; may be called again."""
        process, self._process, self._next = self._process, None, b""
        if process is not None:
            process.kill()
            process.communicate()
            _players.release()


def _complaint(code: int, said: bytes) -> str:
    """What is to be said of a process that ended with this exit code and wrote this."""
    lines = said.decode("utf-8", "replace").strip().splitlines() if code == 3 else []
    return lines[-1] if lines else (f"decoding it ended with exit code {code}, which limits on memory and time also "
                                    "cause")


def main(words: Sequence[str]) -> int:
    """PATH INDEX [PATH INDEX], or play PATH INDEX COUNT, in the process under limits: PNG on standard output. Exit code
    3: no such picture."""
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

    def play(path: str, first: int, count: int) -> None:
        made = 0
        with open_clip(path) as clip:
            for picture in islice(iter(clip), first, first + count):
                Image.fromarray(rgb(picture, clip.info).round().astype(np.uint8)).save(sys.stdout.buffer, "png",
                                                                                        compress_level=1)
                made += 1
        if not made:
            raise VideoError(f"there is no picture {first}")

    try:
        if words[0] == "play":
            play(words[1], int(words[2]), int(words[3]))
            return 0
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
