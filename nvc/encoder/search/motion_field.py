"""The encoder's search for a motion field: the quadtree of blocks, each by nvc/encoder/search/block_search.py, in
coding order.

A block of 32 is compared with the sum of its quarters, and those with the sum of theirs, all at the cost of saying so:
after each block of 32 the adaptive contexts are moved on by what was decided, as they will be when it is coded.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.encoder.search import pyramid_search
from nvc.encoder.search.block_search import BIG, STARTS, Scene, Shape, best_leaf, difference_costs
from nvc.entropy.bits import MEASURE, cost0, cost1
from nvc.motion import neighbours, vectors
from nvc.motion.neighbours import LEFT, MODE, NONE, TOP
from nvc.motion.prediction import REACH, MotionField, Plane, Reference
from nvc.motion.vector_contexts import CANDIDATES, start_contexts
from video.picture import Picture

ENOUGH = (2.0, 0.0, 0.0)      # by effort: bits of residual at which an 8x8 block is merged without a search
EFFORTS = len(ENOUGH)


@njit(cache=True, nogil=True)
def _decide_16(s, y, x, seeds, seeded, leaf, seeds8, leaf8):
    """Decide the block of 16 at (y, x), in units of 8, and write it into the grid. -> its price.

    leaf, leaf8 int64 [5], seeds8 int64 [2, 2]: scratch; seeds: as for best_leaf."""
    two, one = np.int64(2), np.int64(1)
    c = neighbours.split_context(s.grid, y, x, two)
    whole, merged = best_leaf(s, y, x, two, seeds, seeded, leaf)
    whole += s.weight * cost0(s.contexts, c)
    parts = s.weight * cost1(s.contexts, c)
    for q in range(4):
        if whole <= 4 * s.enough or parts >= whole:
            parts = BIG
            break
        neighbours.copy(seeds8.reshape(-1), seeds.reshape(-1))
        price, merged8 = best_leaf(s, y + (q >> 1), x + (q & 1), one, seeds8, True, leaf8)
        parts += price
        neighbours.set_leaf(s.grid, y + (q >> 1), x + (q & 1), one, leaf8, merged8)
    if whole <= parts:
        neighbours.set_leaf(s.grid, y, x, two, leaf, merged)
    return min(whole, parts)


@njit(cache=True, nogil=True)
def _decide(s):
    """Fill the grid in coding order."""
    h8, w8 = s.grid.shape[0] - 2, s.grid.shape[1] - 6
    four = np.int64(4)
    leaf8, leaf16, leaf32 = np.zeros(5, np.int64), np.zeros(5, np.int64), np.zeros(5, np.int64)
    seeds8, seeds16, seeds32 = np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64)
    state, nothing = np.zeros(3, np.int64), np.zeros(1, np.uint8)
    decided = s.grid.copy()
    for y in range(0, h8, 4):
        for x in range(0, w8, 4):
            difference_costs(s.contexts, s.table)
            whole, merged, fits = BIG, np.int64(0), y + 4 <= h8 and x + 4 <= w8
            quarters = 0.0
            if fits:
                c = neighbours.split_context(s.grid, y, x, four)
                whole, merged = best_leaf(s, y, x, four, seeds32, not fits, leaf32)
                whole += s.weight * cost0(s.contexts, c)
                quarters = s.weight * cost1(s.contexts, c)
            for q in range(4):
                i, j = y + (q >> 1) * 2, x + (q & 1) * 2
                if i >= h8 or j >= w8:
                    continue
                if whole <= 16 * s.enough or quarters >= whole:
                    quarters = BIG
                    break
                neighbours.copy(seeds16.reshape(-1), seeds32.reshape(-1))
                quarters += _decide_16(s, i, j, seeds16, fits, leaf16, seeds8, leaf8)
            if whole <= quarters:
                neighbours.set_leaf(s.grid, y, x, four, leaf32, merged)
            # Code the block, for its effect on the contexts.
            for a in range(y + TOP, min(y + 4, h8) + TOP):
                for b in range(x + LEFT, min(x + 4, w8) + LEFT):
                    neighbours.copy(decided[a, b], s.grid[a, b])
                    s.grid[a, b, :] = 0
                    s.grid[a, b, MODE] = NONE
            vectors.code_block(np.int64(MEASURE), state, nothing, s.contexts, s.grid, s.temporal, s.spans, decided,
                               y, x)


def search(luma: Plane, references: Sequence[Reference], spans: tuple[int, int], step: float,
           weight: float = 1.0, effort: int = 0, enough: float | None = None) -> MotionField:
    """The motion field for a picture's luma [H, W] (multiples of 16), predicted from one or two references.

    spans: as in MotionField. step: the quantiser's. weight: what a bit of motion counts against one of the residual.
    effort: 0 fast; 1 without short cuts and refined by bits; 2 the same a second time, knowing the first field.
    enough: see ENOUGH, as the effort has it where nothing is said.
    Raises ValueError if the sizes or spans do not fit the references."""
    height, width = luma.shape
    for reference in references:
        if (reference.height, reference.width) != (height, width):
            raise ValueError(f"reference of {reference.width}x{reference.height} for a picture of {width}x{height}")
    distances = vectors.checked(spans, references)
    x = np.require(luma, np.uint8, ["C", "W"])
    current = pyramid_search.pyramid(x)
    hints = np.zeros((2, height // 16, width // 16, 2), np.int64)
    for k, reference in enumerate(references):
        reach = pyramid_search.REACH_MOST if effort else pyramid_search.reach_of(spans[k])
        hints[k] = pyramid_search.guess(current, reference.pyramid, reach, step)
    temporal = neighbours.temporal_motion(references, distances)
    pitch = width + 2 * REACH
    shape = Shape(width, height, (height + 2 * REACH) * pitch, pitch)
    before: NDArray[np.int16] = np.zeros((0, 0, 2, 2), np.int16)
    for _ in range(max(effort, 1)):
        grid = neighbours.empty_grid(height // 8, width // 8)
        _decide(Scene(
            x.reshape(-1), references[0].phases.reshape(-1), references[-1].phases.reshape(-1), shape,
            np.full(64, 128, np.uint8), 4.0 / step**2, float(weight),
            ENOUGH[effort] if enough is None else enough, effort > 0, distances, start_contexts(), grid, temporal,
            hints, before, np.zeros((CANDIDATES, 5), np.int64), np.zeros((STARTS, 2), np.int64),
            np.zeros((2, 3, 2, 15))))
        field = vectors.field_of(grid, spans)
        before = np.ascontiguousarray(field.vectors)
    return field


def warm() -> None:
    """Compile every kernel into numba's cache."""
    pyramid_search.warm()
    planes = [np.zeros((n, n), np.uint8) for n in (32, 16, 16)]
    reference = Reference(Picture(*planes))
    search(planes[0], [reference], (1, 0), 8.0)
