"""Looks at an uploaded video in a process of its own, under limits, so that a hostile file harms nothing else.

    python service/clips/probe.py FILE…   prints a line for each: {"width", "height", "fps", "frames", …},
                                    or {"error"} if it is no video that can be coded

`look` runs that and gives the answer; the parsers themselves are never imported by whoever calls it.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

MEMORY_BYTES = 3 << 30      # libraries included; a picture of the largest size allowed takes a fraction of it
CPU_S = 60                  # counting the pictures of a long clip whose container does not say takes a while
AT_ONCE = 2                 # processes that look: their memory is bounded each, so it is in all
QUEUE_S = 60.0              # a submission waits for its turn
WALL_S = 90.0               # a demuxer that hangs uses no processor time
OPEN_FILES = 64
# Nothing of the service's own environment (it may hold secrets), and no thread pools, which reserve address space.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath}


class NotAClip(Exception):
    """The bytes are no video that can be coded; the text says why."""


class Busy(Exception):
    """As many files are being looked at as may be, and others wait."""


_slots = threading.BoundedSemaphore(AT_ONCE)


def look(path: Path) -> dict[str, Any]:
    """What the file holds, as in the result's "clip". Raises NotAClip."""
    document = look_at_all([path])[0]
    if "error" in document:
        raise NotAClip(document["error"])
    return document


def look_at_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What each file holds, or {"error"}, by one process for all. Raises NotAClip when it did not live to say, and Busy
    when too many wait for their turn."""
    if not _slots.acquire(timeout=QUEUE_S):
        raise Busy(f"{AT_ONCE} files are being looked at, and others wait; try again in a moment")
    try:
        return _look_at_all(paths)
    finally:
        _slots.release()


def _look_at_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    try:
        done = subprocess.run([sys.executable, "-I", __file__, *map(str, paths)], stdout=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WALL_S, env=ENVIRONMENT,
                              check=False)
    except subprocess.TimeoutExpired:
        raise NotAClip(f"reading it took longer than {WALL_S:g} s") from None
    try:
        return [json.loads(line) for line in done.stdout.splitlines()][:len(paths)] or _died(done.returncode)
    except ValueError:
        return _died(done.returncode)


def _died(code: int) -> NoReturn:
    raise NotAClip(f"reading it ended with exit code {code}, which limits on memory and time also cause")


def limit_this_process() -> None:
    """From here on this process has little memory and time, and cannot write files."""
    for kind, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S),
                        (resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))


def main(paths: Sequence[str]) -> int:
    limit_this_process()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))     # -I leaves it out
    from video.files import read_info
    from video.picture import MOST_BITS, VideoError

    for path in paths:
        try:
            info = read_info(Path(path), most_bits=MOST_BITS)
            found = info.document()
        except VideoError as error:
            found = {"error": str(error).replace(path, Path(path).name)}
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
