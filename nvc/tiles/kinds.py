"""What each tile of a picture is, the coded form of that, and the regions that the networks code. Normative.

    map   = [whole = 1]  |  [whole = 0] tile for each 16×16 luma samples, in rows
    tile  = [network = 1]  |  [network = 0] [samples]

[..] an adaptive bit; its context is how many of the tiles left and above are of that kind. ``whole``: the networks code
all of the picture. A tile that neither networks nor samples code is the picture's prediction, as it stands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.entropy.bits import DECODE, ENCODE, code_bit
from nvc.entropy.range_coder import Decoder, Encoder, fresh_contexts

TILE = 16                               # luma samples
NETWORK, COPY, SAMPLES = 0, 1, 2

Kinds = NDArray[np.uint8]               # [H/16, W/16]

_WHOLE, _NETWORK, _SAMPLES = 0, 1, 4    # first contexts of each bit
# Probability of a 0, and how many bits that counts as.
_START = np.array([0.05, 0.99, 0.5, 0.02, 0.99, 0.6, 0.1])
_CONFIDENCE = 12


def spread(tiles: NDArray, side: int) -> NDArray:
    """Each value of [..., rows, columns] for the side × side parts of its tile, [..., rows·side, columns·side]."""
    return tiles.repeat(side, -2).repeat(side, -1)


class Region(NamedTuple):
    """A rectangle of tiles, from (top, left) to before (bottom, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def slices(self, side: int = 1) -> tuple[slice, slice]:
        """Rows and columns of it, where a tile has side × side."""
        return slice(self.top * side, self.bottom * side), slice(self.left * side, self.right * side)


@njit(cache=True, nogil=True)
def _walk(direction, state, buffer, contexts, kinds):
    whole = np.int64(1)
    if direction != DECODE:
        for kind in kinds.flat:
            whole &= np.int64(kind == NETWORK)
    whole = code_bit(direction, state, buffer, contexts, _WHOLE, whole)
    if whole:
        kinds[:] = NETWORK
        return
    for i in range(kinds.shape[0]):
        for j in range(kinds.shape[1]):
            left = np.int64(kinds[i, j - 1]) if j > 0 else np.int64(COPY)
            up = np.int64(kinds[i - 1, j]) if i > 0 else np.int64(COPY)
            kind = np.int64(kinds[i, j])
            c = _NETWORK + np.int64(left == NETWORK) + np.int64(up == NETWORK)
            if code_bit(direction, state, buffer, contexts, c, np.int64(kind == NETWORK)):
                kinds[i, j] = NETWORK
                continue
            c = _SAMPLES + np.int64(left == SAMPLES) + np.int64(up == SAMPLES)
            kinds[i, j] = COPY + code_bit(direction, state, buffer, contexts, c, np.int64(kind == SAMPLES))


def encode_kinds(coder: Encoder, kinds: Kinds) -> None:
    """Code a picture's map."""
    coder.reserve(kinds.size * 4)
    _walk(ENCODE, coder.state, coder.buffer, fresh_contexts(_START, _CONFIDENCE), kinds)


def decode_kinds(coder: Decoder, rows: int, columns: int) -> Kinds:
    """The map that `encode_kinds` wrote."""
    kinds = np.zeros((rows, columns), np.uint8)
    _walk(DECODE, coder.state, coder.data, fresh_contexts(_START, _CONFIDENCE), kinds)
    return kinds


# --- Regions ----------------------------------------------------------------------------------------------------------

WHOLE = 75              # percent of the picture: regions of more in all are the picture
KEPT, EXTRA = 85, 16    # a region is cut where its parts have less than that percent of it, and as many tiles less
REGIONS_MAX = 16


def regions_of(kinds: Kinds) -> list[Region]:
    """Rectangles that hold all tiles of kind NETWORK: what the networks code, each as a picture of its own.

    The box around all of them is cut in two along a row or a column, and each part shrunk to what it holds, as long as
    that leaves out enough: at the cut that leaves out most, the first of them from top to bottom, then from left to
    right. Boxes are cut in the order in which they came to be. Regions are ordered by top, then by left."""
    coded = kinds == NETWORK
    box = _box(coded, Region(0, 0, *coded.shape))
    if box is None:
        return []
    done, waiting = list[Region](), [box]
    while waiting:
        region = waiting.pop(0)
        parts = _cut(coded, region) if len(done) + len(waiting) + 2 <= REGIONS_MAX else None
        if parts is None:
            done.append(region)
        else:
            waiting += parts
    if 100 * sum(region.area for region in done) > WHOLE * coded.size:
        return [Region(0, 0, *coded.shape)]
    return sorted(done)


def _box(coded: NDArray[np.bool_], region: Region) -> Region | None:
    """The smallest region in one that holds what is coded there."""
    inside = coded[region.slices()]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return Region(region.top + int(rows[0]), region.left + int(columns[0]), region.top + int(rows[-1]) + 1,
                  region.left + int(columns[-1]) + 1)


def _cut(coded: NDArray[np.bool_], region: Region) -> list[Region] | None:
    """Both parts of the best cut, if it is good enough. The region is a box: no side of it is empty."""
    inside = coded[region.slices()]
    areas = np.concatenate([_areas(inside), _areas(inside.T)])
    if not len(areas) or areas.min() >= region.area * KEPT // 100 - EXTRA:
        return None
    top, left, bottom, _ = region
    k = int(areas.argmin()) + 1
    if k < bottom - top:
        pair = region._replace(bottom=top + k), region._replace(top=top + k)
    else:
        k -= bottom - top - 1
        pair = region._replace(right=left + k), region._replace(left=left + k)
    return [box for part in pair if (box := _box(coded, part))]


def _areas(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Area of the boxes above and under each cut between rows, [rows - 1]; first and last row are not empty."""
    rows = np.arange(len(inside))
    filled = inside.any(1)
    last: NDArray[np.int64] = np.maximum.accumulate(np.where(filled, rows, 0))             # row, not empty, up to each
    first: NDArray[np.int64] = np.minimum.accumulate(np.where(filled, rows, len(inside))[::-1])[::-1]
    above = np.logical_or.accumulate(inside, 0)
    under = np.logical_or.accumulate(inside[::-1], 0)[::-1]
    return (last[:-1] + 1) * _widths(above[:-1]) + (len(inside) - first[1:]) * _widths(under[1:])


def _widths(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """From the first to the last set entry of each row, none of which is empty."""
    return rows.shape[1] - rows.argmax(1) - rows[:, ::-1].argmax(1)


def warm() -> None:
    """Compile the kernel into numba's cache."""
    coder = Encoder()
    encode_kinds(coder, np.ones((2, 2), np.uint8))
    decode_kinds(Decoder(coder.finish()), 2, 2)
