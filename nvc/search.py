"""The encoder's search for a motion field: what each block of the quadtree refers to, at the true cost of saying so.

Costs are bits. A block's residual is priced by its 8x8 DCT coefficients c at the quantiser's step,

    bits = 1.36 sum log2(1 + 4 (c / step)^2),

which follows D / lambda + R of residuals quantised by D + lambda R (lambda = 0.15 step^2, measured on 24 clips at four
steps): over pairs of predictions of a block, the cost of choosing wrongly by it is two thirds of that of SATD. Motion
is priced by the adaptive contexts as they stand when the block is coded: after each block of 32 they are moved on.

For each block: merge candidates first, and nothing else where one is good enough; then each reference (starts from the
neighbours, the coarse guess and the larger block; SAD in whole samples, SATD in half and quarter samples), both
together (refined in turns), intra. A block of 32 is compared with the sum of its quarters, and those with theirs.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc import coarse, vectors
from nvc.compensation import BACKWARD, BOTH, INTRA
from nvc.differences import bits8, bits8_pair, sad8, sad16, satd8, satd8_pair
from nvc.motion import MARGIN, REACH, MotionField, Plane, Reference, padded
from nvc.rangecoder import FAST, SLOW
from nvc.vectors import C_BOTH, C_INTRA, C_SECOND, CANDIDATES, COST, LEFT, MEASURE, MODE, NONE, TOP, V0X, V0Y, V1X, V1Y
from picture import Picture

_BIG = 1e18
_PRICE = 1.36                 # bits for each unit of the log sum
_DIGITS = np.array([int(n).bit_length() for n in range(1024)], np.int64)


class Scene(NamedTuple):
    """What blocks are compared with; planes flat."""
    x: NDArray[np.uint8]          # current luma
    pitch_x: int                  # samples from row to row
    height: int
    p0: NDArray[np.uint8]         # phases of reference 0
    p1: NDArray[np.uint8]         # phases of reference 1
    plane: int                    # samples of one phase
    pitch: int
    grey: NDArray[np.uint8]       # [64] of 128
    gain: float                   # 4 / step^2
    enough: float                 # bits of residual an 8x8 block may cost for a merge to be taken unseen


# ---------------------------------------------------------------- what a block's residual costs

@njit(cache=True, nogil=True)
def _place(scene, y, x, n, vy, vx):
    """Where in the phases the n x n samples for the block at (y, x) begin; -1 if they leave what there is."""
    i, j = y + (vy >> 2) + REACH, x + (vx >> 2) + REACH
    if i < 0 or j < 0 or i + n > scene.height + 2 * REACH or j + n > scene.pitch:
        return np.int64(-1)
    return ((vy & 3) * 4 + (vx & 3)) * scene.plane + i * scene.pitch + j


@njit(cache=True, nogil=True)
def _sad(scene, k, y, x, n, vy, vx):
    o = _place(scene, y, x, n, vy, vx)
    if o < 0:
        return _BIG
    p = scene.p0 if k == 0 else scene.p1
    if n == 8:
        return np.float64(sad8(scene.x, y * scene.pitch_x + x, scene.pitch_x, p, o, scene.pitch))
    s = np.int64(0)
    for i in range(0, n, 16):
        for j in range(0, n, 16):
            s += sad16(scene.x, (y + i) * scene.pitch_x + x + j, scene.pitch_x, p, o + i * scene.pitch + j, scene.pitch)
    return np.float64(s)


@njit(cache=True, nogil=True)
def _satd(scene, k, y, x, n, vy, vx):
    o = _place(scene, y, x, n, vy, vx)
    if o < 0:
        return _BIG
    p = scene.p0 if k == 0 else scene.p1
    s = np.int64(0)
    for i in range(0, n, 8):
        for j in range(0, n, 8):
            s += satd8(scene.x, (y + i) * scene.pitch_x + x + j, scene.pitch_x, p, o + i * scene.pitch + j, scene.pitch)
    return np.float64(s)


@njit(cache=True, nogil=True)
def _satd_pair(scene, y, x, n, v):
    """v int64 [4]: both vectors."""
    o, q = _place(scene, y, x, n, v[0], v[1]), _place(scene, y, x, n, v[2], v[3])
    if o < 0 or q < 0:
        return _BIG
    s = np.int64(0)
    for i in range(0, n, 8):
        for j in range(0, n, 8):
            d = i * scene.pitch + j
            s += satd8_pair(scene.x, (y + i) * scene.pitch_x + x + j, scene.pitch_x, scene.p0, o + d, scene.pitch,
                            scene.p1, q + d, scene.pitch)
    return np.float64(s)


@njit(cache=True, nogil=True)
def _bits(scene, y, x, n, leaf):
    """Price of the residual with the motion of a leaf (not intra)."""
    both = leaf[MODE] == BOTH
    k = 1 if leaf[MODE] == BACKWARD else 0
    o = _place(scene, y, x, n, leaf[V0Y + 2 * k], leaf[V0X + 2 * k])
    q = _place(scene, y, x, n, leaf[V1Y], leaf[V1X]) if both else np.int64(0)
    if o < 0 or q < 0:
        return _BIG
    p = scene.p0 if k == 0 else scene.p1
    s = 0.0
    for i in range(0, n, 8):
        for j in range(0, n, 8):
            d, at = i * scene.pitch + j, (y + i) * scene.pitch_x + x + j
            if both:
                s += bits8_pair(scene.x, at, scene.pitch_x, p, o + d, scene.pitch, scene.p1, q + d, scene.pitch,
                                scene.gain)
            else:
                s += bits8(scene.x, at, scene.pitch_x, p, o + d, scene.pitch, scene.gain)
    return _PRICE * s


@njit(cache=True, nogil=True)
def _bits_intra(scene, y, x, n):
    s = 0.0
    for i in range(0, n, 8):
        for j in range(0, n, 8):
            s += bits8(scene.x, (y + i) * scene.pitch_x + x + j, scene.pitch_x, scene.grey, 0, 8, scene.gain)
    return _PRICE * s


# ---------------------------------------------------------------- what motion costs

@njit(cache=True, nogil=True)
def _zero(contexts, c):
    """Bits of a 0 in context c."""
    return np.float64(COST[(contexts[c, FAST] + contexts[c, SLOW]) >> 6])


@njit(cache=True, nogil=True)
def _one(contexts, c):
    """Bits of a 1 in context c."""
    return np.float64(COST[2047 - ((contexts[c, FAST] + contexts[c, SLOW]) >> 6)])


@njit(cache=True, nogil=True)
def _difference_costs(contexts, table):
    """table float64 [2 both?, 3 spread, 2 component, 15]: bits of a difference of that many binary digits."""
    for both in range(2):
        for spread in range(3):
            for component in range(2):
                base = vectors.digits_context(both, spread, component)
                more = 0.0
                for n in range(15):
                    total = more
                    if n < 14:
                        total += _zero(contexts, base + n)
                        more += _one(contexts, base + n)
                    if n > 0:
                        total += 1 + max(n - 2, 0)
                    if n > 1:
                        total += 0.5 * (_zero(contexts, C_SECOND + n) + _one(contexts, C_SECOND + n))
                    table[both, spread, component, n] = total


@njit(cache=True, nogil=True)
def _vector_cost(table, dy, dx):
    """table [2 component, 15]; -> bits of a vector difference."""
    dy, dx = abs(dy), abs(dx)
    if dy < 1024 and dx < 1024:
        return table[0, _DIGITS[dy]] + table[1, _DIGITS[dx]]
    return table[0, 10 + _DIGITS[min(dy >> 10, 15)]] + table[1, 10 + _DIGITS[min(dx >> 10, 15)]]


@njit(cache=True, nogil=True)
def _satd_price(satd, bits, samples):
    """How much SATD a bit is worth for a block with this SATD and price: the slope of the price law at its mean."""
    mean = max(bits / samples, 0.02)
    z = 2.0 ** (mean / _PRICE) - 1.0
    elasticity = 2.0 * z / ((1.0 + z) * np.log(1.0 + z))
    return max(satd, 1.0) / (elasticity * mean * samples)


# ---------------------------------------------------------------- vectors of one block

@njit(cache=True, nogil=True)
def _search_one(scene, k, y, x, n, py, px, table, price, starts, count, v):
    """The vector for reference k, v int64 [2], from starts int64 [count, 2]; -> its cost in SATD.

    (py, px): the prediction; table [2 component, 15]: bits of differences; price: SATD a bit is worth."""
    best, vy, vx = _BIG, np.int64(0), np.int64(0)
    half = 0.5 * price                     # SATD of noise is about twice its SAD
    for s in range(count):
        ty, tx = starts[s, 0], starts[s, 1]
        cost = _sad(scene, k, y, x, n, ty, tx) + half * _vector_cost(table, ty - py, tx - px)
        if cost < best:
            best, vy, vx = cost, ty, tx
    for _ in range(16):
        cy, cx = vy, vx
        for q in range(4):
            ty, tx = cy + (4 * q - 2 if q < 2 else 0) * 2, cx + (4 * q - 10 if q >= 2 else 0) * 2
            cost = _sad(scene, k, y, x, n, ty, tx) + half * _vector_cost(table, ty - py, tx - px)
            if cost < best:
                best, vy, vx = cost, ty, tx
        if vy == cy and vx == cx:
            break
    best = _satd(scene, k, y, x, n, vy, vx) + price * _vector_cost(table, vy - py, vx - px)
    if vy != py or vx != px:
        cost = _satd(scene, k, y, x, n, py, px) + price * _vector_cost(table, py - py, px - px)
        if cost < best:
            best, vy, vx = cost, py, px
    for step in (2, 1):
        for _ in range(2):
            cy, cx = vy, vx
            for q in range(8):
                m = q + (q > 3)
                ty, tx = cy + (m // 3 - 1) * step, cx + (m % 3 - 1) * step
                rate = price * _vector_cost(table, ty - py, tx - px)
                if rate < best:
                    cost = rate + _satd(scene, k, y, x, n, ty, tx)
                    if cost < best:
                        best, vy, vx = cost, ty, tx
            if vy == cy and vx == cx:
                break
    v[0], v[1] = vy, vx
    return best


@njit(cache=True, nogil=True)
def _pair_cost(scene, y, x, n, predicted, tables, spread, price, v):
    rate = (_vector_cost(tables[spread[0]], v[0] - predicted[0], v[1] - predicted[1])
            + _vector_cost(tables[spread[1]], v[2] - predicted[2], v[3] - predicted[3]))
    return price * rate + _satd_pair(scene, y, x, n, v)


@njit(cache=True, nogil=True)
def _refine_pair(scene, y, x, n, predicted, tables, spread, price, v, best):
    """Move both vectors v int64 [4] in turns, by three and then by one quarter sample, while the cost falls."""
    for step in (3, 1):
        still = 0
        for turn in range(8):
            k = 2 * (turn & 1)
            cy, cx = v[k], v[k + 1]
            by, bx = cy, cx
            for q in range(8):
                m = q + (q > 3)
                v[k], v[k + 1] = cy + (m // 3 - 1) * step, cx + (m % 3 - 1) * step
                cost = _pair_cost(scene, y, x, n, predicted, tables, spread, price, v)
                if cost < best:
                    best, by, bx = cost, v[k], v[k + 1]
            v[k], v[k + 1] = by, bx
            still = still + 1 if by == cy and bx == cx else 0
            if still == 2:
                break


@njit(cache=True, nogil=True)
def _best_leaf(scene, contexts, grid, temporal, spans, hints, table, weight, y8, x8, n8, seeds, seeded, leaf, found,
               starts):
    """The best motion for a block as one leaf: leaf int64 [5]. -> its price, and 1 if merged.

    table: of _difference_costs; weight: what a bit of motion counts; seeds int64 [2, 2]: in (if seeded) the vectors of
    the larger block, out this one's."""
    y, x, n = y8 * 8, x8 * 8, n8 * 8
    references = 2 if spans[1] != 0 else 1
    count = vectors.candidates(grid, temporal, spans, y8, x8, n8, found)
    c = vectors.merge_context(grid, y8, x8, n8)
    own, rate = weight * _zero(contexts, c), _one(contexts, c)
    best, merged, residual = _BIG, np.int64(1), _BIG
    for k in range(count):
        c = vectors.index_context(count, k)
        bits = _bits(scene, y, x, n, found[k])
        price = bits + weight * (rate + (0.0 if k == count - 1 else _zero(contexts, c)))
        rate += _one(contexts, c)
        if price < best:
            best, residual = price, bits
            vectors.copy(leaf, found[k])
    if residual <= scene.enough * n8 * n8:
        seeds[0, 0], seeds[0, 1], seeds[1, 0], seeds[1, 1] = leaf[V0Y], leaf[V0X], leaf[V1Y], leaf[V1X]
        return best, merged

    # What saying the mode costs.
    c = C_INTRA + vectors.like(grid, y8, x8, np.int64(INTRA))
    intra, inter = own + weight * _one(contexts, c), own + weight * _zero(contexts, c)
    modes = np.zeros(3)
    modes[0] = inter
    if references == 2:
        c = C_BOTH + vectors.like(grid, y8, x8, np.int64(BOTH))
        modes[2] = inter + weight * _one(contexts, c)
        inter += weight * _zero(contexts, c)
        c = vectors.which_context(grid, y8, x8)
        modes[0], modes[1] = inter + weight * _zero(contexts, c), inter + weight * _one(contexts, c)

    # SATD per bit, from the best merge.
    trial = np.zeros(5, np.int64)
    v, pair = np.empty(2, np.int64), np.empty(4, np.int64)
    vectors.copy(pair, leaf[V0Y:])
    if leaf[MODE] == BOTH:
        satd = _satd_pair(scene, y, x, n, pair)
    else:
        k = leaf[MODE]
        satd = _satd(scene, k, y, x, n, pair[2 * k], pair[2 * k + 1])
    if satd < _BIG:
        price_satd = weight * _satd_price(satd, residual, n * n)
    else:
        price_satd = weight * 1.5 * 2.0 / np.sqrt(scene.gain)

    predicted, spread = np.empty(4, np.int64), np.zeros(2, np.int64)
    col = temporal[y8 + (n8 >> 1), x8 + (n8 >> 1)]
    single = _BIG                          # SATD cost of the better reference alone
    for k in range(references):
        py, px, spread[k] = vectors.predicted(grid, temporal, y8, x8, n8, k)
        predicted[2 * k], predicted[2 * k + 1] = py, px
        starts[0, 0], starts[0, 1] = py, px
        starts[1, 0], starts[1, 1] = 0, 0
        m = 2
        for q in range(count):
            starts[m, 0], starts[m, 1] = found[q, V0Y + 2 * k], found[q, V0X + 2 * k]
            m += 1
        if col[MODE] != NONE:
            starts[m, 0], starts[m, 1] = col[V0Y + 2 * k], col[V0X + 2 * k]
            m += 1
        if seeded:
            starts[m, 0], starts[m, 1] = seeds[k, 0], seeds[k, 1]
            m += 1
        for i in range(y8 >> 1, (y8 + n8 + 1) >> 1):
            for j in range(x8 >> 1, (x8 + n8 + 1) >> 1):
                starts[m, 0], starts[m, 1] = hints[k, i, j, 0], hints[k, i, j, 1]
                m += 1
        cost = _search_one(scene, k, y, x, n, py, px, table[0, spread[k]], price_satd, starts, m, v)
        single = min(single, cost)
        seeds[k, 0], seeds[k, 1] = v[0], v[1]
        trial[MODE], trial[V0Y + 2 * k], trial[V0X + 2 * k] = k, v[0], v[1]
        price = (_bits(scene, y, x, n, trial) + modes[k]
                 + weight * _vector_cost(table[0, spread[k]], v[0] - py, v[1] - px))
        if price < best:
            best, merged = price, np.int64(0)
            vectors.copy(leaf, trial)
    if references == 2:
        # Both: from the two vectors just found, or from the best candidate that uses both.
        least = _BIG
        for s in range(count + 1):
            if s == count:
                trial[V0Y], trial[V0X], trial[V1Y], trial[V1X] = seeds[0, 0], seeds[0, 1], seeds[1, 0], seeds[1, 1]
            elif found[s, MODE] == BOTH:
                vectors.copy(trial, found[s])
            else:
                continue
            cost = _pair_cost(scene, y, x, n, predicted, table[1], spread, price_satd, trial[V0Y:])
            if cost < least:
                least = cost
                vectors.copy(pair, trial[V0Y:])
        if least < 1.15 * single:
            _refine_pair(scene, y, x, n, predicted, table[1], spread, price_satd, pair, least)
            trial[MODE] = BOTH
            vectors.copy(trial[V0Y:], pair)
            price = (_bits(scene, y, x, n, trial) + modes[2]
                     + weight * (_vector_cost(table[1, spread[0]], pair[0] - predicted[0], pair[1] - predicted[1])
                                 + _vector_cost(table[1, spread[1]], pair[2] - predicted[2], pair[3] - predicted[3])))
            if price < best:
                best, merged = price, np.int64(0)
                vectors.copy(leaf, trial)
    # Chroma loses its prediction too, and what the prediction tells of the latents: half as much again.
    price = intra + 1.5 * _bits_intra(scene, y, x, n)
    if price < best:
        best, merged = price, np.int64(0)
        leaf[MODE] = INTRA
    if merged == 0:
        vectors.fill_other(leaf, spans)
    return best, merged


# ---------------------------------------------------------------- the tree

@njit(cache=True, nogil=True)
def _decide(scene, contexts, grid, temporal, spans, hints, weight):
    """Fill the grid in coding order. -> bits of the motion."""
    h8, w8 = grid.shape[0] - 2, grid.shape[1] - 6
    table = np.zeros((2, 3, 2, 15))
    found, starts = np.zeros((CANDIDATES, 5), np.int64), np.zeros((16, 2), np.int64)
    leaf8, leaf16, leaf32 = np.zeros(5, np.int64), np.zeros(5, np.int64), np.zeros(5, np.int64)
    seeds8, seeds16, seeds32 = np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64)
    state, nothing = np.zeros(3, np.int64), np.zeros(1, np.uint8)
    source = grid.copy()
    size32, size16, size8 = np.int64(4), np.int64(2), np.int64(1)
    for y in range(0, h8, 4):
        for x in range(0, w8, 4):
            _difference_costs(contexts, table)
            whole, merged32, fits = _BIG, np.int64(0), y + 4 <= h8 and x + 4 <= w8
            quarters = 0.0
            if fits:
                c = vectors.split_context(grid, y, x, size32)
                whole, merged32 = _best_leaf(scene, contexts, grid, temporal, spans, hints, table, weight, y, x,
                                             size32, seeds32, not fits, leaf32, found, starts)
                whole += weight * _zero(contexts, c)
                quarters = weight * _one(contexts, c)
            if whole > 16 * scene.enough:
                for i in range(y, min(y + 4, h8), 2):
                    for j in range(x, min(x + 4, w8), 2):
                        if quarters >= whole:
                            break
                        c = vectors.split_context(grid, i, j, size16)
                        vectors.copy(seeds16.reshape(-1), seeds32.reshape(-1))
                        half, merged16 = _best_leaf(scene, contexts, grid, temporal, spans, hints, table, weight, i, j,
                                                    size16, seeds16, fits, leaf16, found, starts)
                        half += weight * _zero(contexts, c)
                        parts = weight * _one(contexts, c)
                        if half > 4 * scene.enough:
                            for q in range(4):
                                a, b = i + (q >> 1), j + (q & 1)
                                vectors.copy(seeds8.reshape(-1), seeds16.reshape(-1))
                                price, merged8 = _best_leaf(
                                    scene, contexts, grid, temporal, spans, hints, table, weight, a, b, size8,
                                    seeds8, half < _BIG, leaf8, found, starts)
                                parts += price
                                if parts >= half:
                                    break
                                vectors.set_leaf(grid, a, b, size8, leaf8, merged8)
                        else:
                            parts = _BIG
                        if parts >= half:
                            vectors.set_leaf(grid, i, j, size16, leaf16, merged16)
                        quarters += min(parts, half)
            else:
                quarters = _BIG
            if whole <= quarters:
                vectors.set_leaf(grid, y, x, size32, leaf32, merged32)
            # Code the block, for its effect on the contexts.
            for a in range(y + TOP, min(y + 4, h8) + TOP):
                for b in range(x + LEFT, min(x + 4, w8) + LEFT):
                    vectors.copy(source[a, b], grid[a, b])
                    grid[a, b, :] = 0
                    grid[a, b, MODE] = NONE
            vectors.code_block(MEASURE, state, nothing, contexts, grid, temporal, spans, source, y, x)
    return state[0] / vectors.COST_UNIT


def search(luma: Plane, references: Sequence[Reference], spans: tuple[int, int], step: float,
           weight: float = 1.0, enough: float = 2.0) -> MotionField:
    """The motion field for a picture's luma [H, W] (multiples of 16), predicted from one or two references.

    spans: as in MotionField. step: the quantiser's. weight: what a bit of motion counts against one of the residual.
    enough: bits of residual at which an 8x8 block is merged without a search (0: search always).
    Raises ValueError if the sizes or spans do not fit the references."""
    height, width = luma.shape
    for reference in references:
        if (reference.height, reference.width) != (height, width):
            raise ValueError(f"reference of {reference.width}x{reference.height} for a picture of {width}x{height}")
    distances = vectors.checked(spans, references)
    first, second = references[0], references[-1]
    x = np.require(luma, np.uint8, ["C", "W"])
    current = coarse.pyramid(padded(x, MARGIN))
    hints = np.zeros((2, height // 16, width // 16, 2), np.int64)
    for k, reference in enumerate(references):
        hints[k] = coarse.guess(current, reference.pyramid, min(16, 6 + 2 * abs(spans[k])), step)
    pitch = width + 2 * REACH
    scene = Scene(x.reshape(-1), width, height, first.phases.reshape(-1), second.phases.reshape(-1),
                  (height + 2 * REACH) * pitch, pitch, np.full(64, 128, np.uint8), 4.0 / step**2, enough)
    grid = vectors.empty_grid(height // 8, width // 8)
    _decide(scene, vectors.start_contexts(), grid, vectors.temporal_motion(references, distances), distances,
            hints, weight)
    return vectors.field_of(grid, spans)


def warm() -> None:
    """Compile every kernel into numba's cache."""
    coarse.warm()
    planes = [np.zeros((n, n), np.uint8) for n in (32, 16, 16)]
    reference = Reference(Picture(*planes))
    search(planes[0], [reference], (1, 0), 8.0)
