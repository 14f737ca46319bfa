"""Count what the contexts of the motion syntax see, and print the table they start from.

    python -m train.motion_contexts FOLDER [CLIPS]

Takes CLIPS (24) of the folder's video clips, evenly by name, codes them with x264 at four quantisers, searches motion
in pictures predicted from what it decoded (hierarchical B pictures eight apart, then P pictures with one and with two
references), and counts. A context's confidence is half the concentration of the beta distribution whose variance over
the pictures is that of its counts: halved, as pictures differ more than that from those of other clips.
"""
from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from nvc.encoder.search.motion_field import search
from nvc.motion.prediction import Reference
from nvc.motion.vector_contexts import CONTEXTS
from nvc.motion.vectors import tally
from video.picture import Picture

QUANTISERS = (22, 27, 32, 37)          # of x264; its step is 2 ** ((q - 4) / 6)
PICTURES = 17
# Picture numbers with those of their references.
B_PICTURES: list[tuple[int, tuple[int, ...]]] = [
    (8, (0,)), (4, (0, 8)), (2, (0, 4)), (6, (4, 8)), (1, (0, 2)), (3, (2, 4)), (5, (4, 6)), (7, (6, 8)),
    (16, (8,)), (12, (8, 16)), (10, (8, 12)), (14, (12, 16)), (9, (8, 10)), (11, (10, 12)), (13, (12, 14)),
    (15, (14, 16))]
ORDERS: list[list[tuple[int, tuple[int, ...]]]] = [
    [*B_PICTURES], [(t, (t - 1,)) for t in range(1, 9)], [(1, (0,)), *((t, (t - 1, t - 2)) for t in range(2, 9))]]


def pictures(source: str | io.BytesIO) -> list[Picture]:
    """The first pictures, cut to multiples of 16."""
    found = []
    with av.open(source, "r") as container:
        for frame in container.decode(video=0):
            planes = frame.reformat(format="yuv420p").planes
            height, width = frame.height // 16 * 16, frame.width // 16 * 16
            arrays = [np.frombuffer(memoryview(p), np.uint8).reshape(-1, p.line_size) for p in planes]
            found.append(Picture(*(np.ascontiguousarray(a[:height // n, :width // n])
                                   for a, n in zip(arrays, (1, 2, 2), strict=True))))
            if len(found) == PICTURES:
                break
    return found


def recoded(source: list[Picture], quantiser: int) -> list[Picture]:
    height, width = source[0].y.shape
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"qp": str(quantiser), "preset": "fast", "tune": "psnr"}
        for picture in source:
            planes = np.concatenate([plane.reshape(-1) for plane in picture]).reshape(height * 3 // 2, width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    return pictures(buffer)


def counts(clip: Path) -> Iterator[NDArray[np.int32]]:
    source = pictures(str(clip))
    for quantiser in QUANTISERS:
        decoded = recoded(source, quantiser)
        for order in ORDERS:
            references = {0: Reference(decoded[0])}
            for number, refers in order:
                given = [references[r] for r in refers]
                spans = (number - refers[0], number - refers[1] if len(refers) > 1 else 0)
                field = search(source[number].y, given, spans, 2 ** ((quantiser - 4) / 6))
                references[number] = Reference(decoded[number], field)
                yield tally(field, given)


def start(seen: NDArray[np.int64]) -> bytes:
    """The table, from counts int64 [pictures, CONTEXTS, 2]."""
    n, zeros = seen.sum(2), seen[..., 0]
    p = (zeros.sum(0) + 0.5) / (n.sum(0) + 1)
    variance = ((zeros - n * p) ** 2).sum(0)
    plain, extra = (n * p * (1 - p)).sum(0), (n * (n - 1) * p * (1 - p)).sum(0)
    correlation = np.clip((variance - plain) / np.maximum(extra, 1e-9), 1e-3, 0.999)
    confidence = np.clip(np.rint(np.minimum(0.5 * (1 / correlation - 1), n.sum(0) / 8)), 1, 60)
    table = np.stack([np.clip(np.rint(p * 256), 1, 255), confidence], axis=1).astype(np.uint8)
    return table.tobytes()


def main() -> None:
    clips = sorted(p for p in Path(sys.argv[1]).iterdir() if p.suffix in (".mp4", ".mkv", ".y4m"))
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    seen = [c for clip in clips[::max(len(clips) // wanted, 1)][:wanted] for c in counts(clip)]
    table = start(np.array(seen, np.int64).reshape(-1, CONTEXTS, 2))
    print("\n".join(textwrap.wrap(table.hex(), 112)))


if __name__ == "__main__":
    main()
