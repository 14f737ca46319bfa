"""Looks at an uploaded video in a process of its own, under limits, so that a hostile file harms nothing else.

    python probe.py FILE        prints {"width", "height", "fps", "frames", …} and exits 0,
                                or {"error"} and exits 1 if the file is no video that can be coded

`look` runs that and gives the answer; the parsers themselves are never imported by whoever calls it.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

MEMORY_BYTES = 3 << 30      # libraries included; a picture of the largest size allowed takes a fraction of it
CPU_S = 60                  # counting the pictures of a long clip whose container does not say takes a while
WALL_S = 90.0               # a demuxer that hangs uses no processor time
OPEN_FILES = 64
# Nothing of the service's own environment (it may hold secrets), and no thread pools, which reserve address space.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath}


class NotAClip(Exception):
    """The bytes are no video that can be coded; the text says why."""


def look(path: Path) -> dict[str, Any]:
    """What the file holds, as in the result's "clip". Raises NotAClip."""
    try:
        done = subprocess.run([sys.executable, "-I", __file__, str(path)], stdout=subprocess.PIPE, timeout=WALL_S,
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, check=False)
    except subprocess.TimeoutExpired:
        raise NotAClip(f"reading it took longer than {WALL_S:g} s") from None
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise NotAClip(f"reading it ended with exit code {done.returncode}, which limits on memory and time also "
                       "cause") from None
    if "error" in document:
        raise NotAClip(document["error"])
    return document


def main(path: str) -> int:
    for kind, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S),
                        (resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (limit, limit))
    sys.path.insert(0, str(Path(__file__).parent))     # -I leaves it out
    import video

    try:
        info = video.read_info(Path(path))
    except video.VideoError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"width": info.width, "height": info.height, "frames": info.frames, "matrix": info.matrix,
                      "range": info.range, "converted": info.converted,
                      "fps": f"{info.fps.numerator}/{info.fps.denominator}"}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
