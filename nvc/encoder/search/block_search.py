"""The encoder's search for the motion of one block: what it costs to predict it from where, and where that is least.

Costs are bits. A block's residual is priced by its 8x8 DCT coefficients c at the quantiser's step,

    bits = 1.36 sum log2(1 + 4 (c / step)^2),

which follows D / lambda + R of residuals quantised by D + lambda R (lambda = 0.15 step^2, measured on 24 clips at four
steps): over pairs of predictions of a block, the cost of choosing wrongly by it is two thirds of that of SATD. Motion
is priced by the adaptive contexts as they stand.

Merge candidates come first, and nothing else where one is good enough. Then each reference: starts from neighbours,
the coarse guess and the larger block, SAD in whole samples, SATD (thorough: bits) in half and quarter samples. Then
both together, refined in turns, and intra.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.encoder.search.block_differences import bits8, bits8_pair, sad8, sad16, satd8, satd8_pair, satd16, satd16_pair
from nvc.entropy.bits import cost0, cost1
from nvc.motion import neighbours
from nvc.motion.compensation import BACKWARD, BOTH, INTRA
from nvc.motion.neighbours import MODE, NONE, V0X, V0Y
from nvc.motion.prediction import REACH
from nvc.motion.vector_contexts import C_BOTH, C_INTRA, C_SECOND, DIGITS_MAX

BIG = 1e18
PRICE = 1.36                  # bits for each unit of the log sum
INTRA_PRICE = 1.5             # chroma loses its prediction too, and what the prediction tells of the latents is gone
BOTH_WITHIN = 1.15             # both references are refined if they begin within this factor of the better one alone
STARTS = 24
# Not plain numbers, which numba would compile each function for once more.
_BY_BITS, _BY_SATD = np.bool_(True), np.bool_(False)
_DIGITS = np.array([int(n).bit_length() for n in range(1024)], np.int64)


class Shape(NamedTuple):
    """Of a picture's luma and of its references' phases."""
    pitch_x: int                  # samples of luma from row to row
    height: int
    plane: int                    # samples of one phase
    pitch: int                    # of a phase


class Scene(NamedTuple):
    """A picture in search: what blocks are compared with, what is known of motion, and scratch.

    What is called for each vector takes planes by themselves: handed on whole, this would be copied each time."""
    luma: NDArray[np.uint8]       # flat
    p0: NDArray[np.uint8]         # phases of reference 0, flat
    p1: NDArray[np.uint8]         # of reference 1
    shape: Shape
    grey: NDArray[np.uint8]       # [64] of 128
    gain: float                   # 4 / step^2
    weight: float                 # what a bit of motion counts
    enough: float                 # bits of residual an 8x8 block may cost for a merge to be taken unseen
    thorough: bool                # refine by bits, not by SATD
    spans: NDArray[np.int64]
    contexts: NDArray[np.int32]
    grid: NDArray[np.int16]       # the decisions so far; this and temporal as in nvc/motion/neighbours.py
    temporal: NDArray[np.int16]
    hints: NDArray[np.int64]      # [2, H/16, W/16, 2] coarse guesses
    before: NDArray[np.int16]     # [H/8, W/8, 2, 2] vectors of an earlier pass, or empty
    found: NDArray[np.int64]      # [CANDIDATES, 5]
    starts: NDArray[np.int64]     # [STARTS, 2]
    table: NDArray[np.float64]    # of difference_costs


# ---------------------------------------------------------------- what a block's residual costs

@njit(cache=True, nogil=True)
def _place(shape, y, x, n, vy, vx):
    """Where in the phases the n x n samples for the block at (y, x) begin; -1 if they leave what there is."""
    i, j = y + (vy >> 2) + REACH, x + (vx >> 2) + REACH
    if i < 0 or j < 0 or i + n > shape.height + 2 * REACH or j + n > shape.pitch:
        return np.int64(-1)
    return ((vy & 3) * 4 + (vx & 3)) * shape.plane + i * shape.pitch + j


@njit(cache=True, nogil=True)
def _sad(luma, p, shape, y, x, n, vy, vx):
    o = _place(shape, y, x, n, vy, vx)
    if o < 0:
        return BIG
    at, pitch_x, pitch = y * shape.pitch_x + x, shape.pitch_x, shape.pitch
    if n == 8:
        return np.float64(sad8(luma, at, pitch_x, p, o, pitch))
    total = np.int64(0)
    for i in range(0, n, 16):
        for j in range(0, n, 16):
            total += sad16(luma, at + i * pitch_x + j, pitch_x, p, o + i * pitch + j, pitch)
    return np.float64(total)


@njit(cache=True, nogil=True)
def _one(luma, p, shape, gain, by_bits, y, x, n, vy, vx):
    """SATD, or bits of residual, of a block predicted from one reference."""
    o = _place(shape, y, x, n, vy, vx)
    if o < 0:
        return BIG
    at, pitch_x, pitch, size = y * shape.pitch_x + x, shape.pitch_x, shape.pitch, np.int64(8) if by_bits else min(n, 16)
    satd, bits = np.int64(0), 0.0
    for i in range(0, n, size):
        for j in range(0, n, size):
            a, c = at + i * pitch_x + j, o + i * pitch + j
            if by_bits:
                bits += bits8(luma, a, pitch_x, p, c, pitch, gain)
            elif size == 8:
                satd += satd8(luma, a, pitch_x, p, c, pitch)
            else:
                satd += satd16(luma, a, pitch_x, p, c, pitch)
    return PRICE * bits if by_bits else np.float64(satd)


@njit(cache=True, nogil=True)
def _two(luma, p0, p1, shape, gain, by_bits, y, x, n, v):
    """The same from both references; v int64 [4]: both vectors."""
    o, q = _place(shape, y, x, n, v[0], v[1]), _place(shape, y, x, n, v[2], v[3])
    if min(o, q) < 0:
        return BIG
    at, pitch_x, pitch, size = y * shape.pitch_x + x, shape.pitch_x, shape.pitch, np.int64(8) if by_bits else min(n, 16)
    satd, bits = np.int64(0), 0.0
    for i in range(0, n, size):
        for j in range(0, n, size):
            a, d = at + i * pitch_x + j, i * pitch + j
            if by_bits:
                bits += bits8_pair(luma, a, pitch_x, p0, o + d, pitch, p1, q + d, pitch, gain)
            elif size == 8:
                satd += satd8_pair(luma, a, pitch_x, p0, o + d, pitch, p1, q + d, pitch)
            else:
                satd += satd16_pair(luma, a, pitch_x, p0, o + d, pitch, p1, q + d, pitch)
    return PRICE * bits if by_bits else np.float64(satd)


@njit(cache=True, nogil=True)
def _leaf_difference(luma, p0, p1, shape, gain, by_bits, y, x, n, leaf):
    """The same for the motion of a leaf that is not intra."""
    if leaf[MODE] == BOTH:
        return _two(luma, p0, p1, shape, gain, by_bits, y, x, n, leaf[V0Y:])
    if leaf[MODE] == BACKWARD:
        return _one(luma, p1, shape, gain, by_bits, y, x, n, leaf[V0Y + 2], leaf[V0X + 2])
    return _one(luma, p0, shape, gain, by_bits, y, x, n, leaf[V0Y], leaf[V0X])


@njit(cache=True, nogil=True)
def _intra_bits(luma, grey, pitch, gain, y, x, n):
    bits = 0.0
    for i in range(0, n, 8):
        for j in range(0, n, 8):
            bits += bits8(luma, (y + i) * pitch + x + j, pitch, grey, 0, 8, gain)
    return INTRA_PRICE * PRICE * bits


# ---------------------------------------------------------------- what motion costs

@njit(cache=True, nogil=True)
def difference_costs(contexts, table):
    """table float64 [2 both?, 3 spread, 2 component, 15]: bits of a difference of that many binary digits."""
    for both in range(2):
        for spread in range(3):
            for component in range(2):
                base = neighbours.digits_context(both, spread, component)
                more = 0.0
                for n in range(DIGITS_MAX + 1):
                    total = more
                    if n < DIGITS_MAX:
                        total += cost0(contexts, base + n)
                        more += cost1(contexts, base + n)
                    if n > 0:
                        total += 1 + max(n - 2, 0)
                    if n > 1:
                        total += 0.5 * (cost0(contexts, C_SECOND + n) + cost1(contexts, C_SECOND + n))
                    table[both, spread, component, n] = total


@njit(cache=True, nogil=True)
def _vector_cost(table, dy, dx):
    """table [2 component, 15]; -> bits of a vector difference."""
    dy, dx = abs(dy), abs(dx)
    if dy < 1024 and dx < 1024:
        return table[0, _DIGITS[dy]] + table[1, _DIGITS[dx]]
    return table[0, min(10 + _DIGITS[min(dy >> 10, 15)], DIGITS_MAX)] + \
        table[1, min(10 + _DIGITS[min(dx >> 10, 15)], DIGITS_MAX)]


@njit(cache=True, nogil=True)
def _satd_price(satd, bits, samples):
    """The SATD that equals a bit for a block with this SATD and price: the slope of the price law at its mean."""
    mean = max(bits / samples, 0.02)
    z = 2.0 ** (mean / PRICE) - 1.0
    elasticity = 2.0 * z / ((1.0 + z) * np.log(1.0 + z))
    return max(satd, 1.0) / (elasticity * mean * samples)


# ---------------------------------------------------------------- vectors

@njit(cache=True, nogil=True)
def _gather_starts(s, k, y8, x8, n8, py, px, candidates, seeds, seeded):
    """Fill s.starts with vectors for reference k that may be near the best; -> how many."""
    starts = s.starts
    starts[0, 0], starts[0, 1] = py, px
    starts[1, 0], starts[1, 1] = 0, 0
    m = 2
    for q in range(candidates):
        starts[m, 0], starts[m, 1] = s.found[q, V0Y + 2 * k], s.found[q, V0X + 2 * k]
        m += 1
    col = s.temporal[y8 + (n8 >> 1), x8 + (n8 >> 1)]
    if col[MODE] != NONE:
        starts[m, 0], starts[m, 1] = col[V0Y + 2 * k], col[V0X + 2 * k]
        m += 1
    if seeded:
        starts[m, 0], starts[m, 1] = seeds[k, 0], seeds[k, 1]
        m += 1
    for i in range(y8 >> 1, (y8 + n8 + 1) >> 1):
        for j in range(x8 >> 1, (x8 + n8 + 1) >> 1):
            starts[m, 0], starts[m, 1] = s.hints[k, i, j, 0], s.hints[k, i, j, 1]
            m += 1
    for q in range(2):                     # what may lie below and to the right
        i = min((y8 + (n8 if q == 0 else 0)) >> 1, s.hints.shape[1] - 1)
        j = min((x8 + (n8 if q == 1 else 0)) >> 1, s.hints.shape[2] - 1)
        starts[m, 0], starts[m, 1] = s.hints[k, i, j, 0], s.hints[k, i, j, 1]
        m += 1
    if s.before.shape[0]:
        for q in range(3):
            i = min(y8 + (n8 if q == 1 else 0), s.before.shape[0] - 1)
            j = min(x8 + (n8 if q == 2 else 0), s.before.shape[1] - 1)
            starts[m, 0], starts[m, 1] = s.before[i, j, k, 0], s.before[i, j, k, 1]
            m += 1
    return m


@njit(cache=True, nogil=True)
def _search_one(luma, p, shape, gain, thorough, starts, y, x, n, py, px, table, price, sad_price, count, v):
    """The vector v int64 [2], from the first `count` of starts; -> its cost.

    (py, px): the prediction; table [2 component, 15]: bits of differences; price, sad_price: what equals a bit."""
    best, vy, vx = BIG, np.int64(0), np.int64(0)
    for q in range(count):
        ty, tx = starts[q, 0], starts[q, 1]
        cost = _sad(luma, p, shape, y, x, n, ty, tx) + sad_price * _vector_cost(table, ty - py, tx - px)
        if cost < best:
            best, vy, vx = cost, ty, tx
    for _ in range(16):
        cy, cx = vy, vx
        for q in range(4):
            ty, tx = cy + (8 * q - 4 if q < 2 else 0), cx + (8 * q - 20 if q >= 2 else 0)
            cost = _sad(luma, p, shape, y, x, n, ty, tx) + sad_price * _vector_cost(table, ty - py, tx - px)
            if cost < best:
                best, vy, vx = cost, ty, tx
        if vy == cy and vx == cx:
            break
    best = _one(luma, p, shape, gain, thorough, y, x, n, vy, vx) + price * _vector_cost(table, vy - py, vx - px)
    for q in range(count if thorough else 1):
        ty, tx = starts[q, 0], starts[q, 1]
        if ty != vy or tx != vx:
            cost = _one(luma, p, shape, gain, thorough, y, x, n, ty, tx) + price * _vector_cost(table, ty - py, tx - px)
            if cost < best:
                best, vy, vx = cost, ty, tx
    for step in (2, 1):
        for _ in range(2):
            cy, cx = vy, vx
            for q in range(8):
                m = q + (q > 3)
                ty, tx = cy + (m // 3 - 1) * step, cx + (m % 3 - 1) * step
                rate = price * _vector_cost(table, ty - py, tx - px)
                if rate < best:
                    cost = rate + _one(luma, p, shape, gain, thorough, y, x, n, ty, tx)
                    if cost < best:
                        best, vy, vx = cost, ty, tx
            if vy == cy and vx == cx:
                break
    v[0], v[1] = vy, vx
    return best


@njit(cache=True, nogil=True)
def _pair_rate(first, second, spans, predicted, v):
    dy, dx = v[0] - predicted[0], v[1] - predicted[1]
    return (_vector_cost(first, dy, dx)
            + _vector_cost(second, v[2] - neighbours.second_prediction(predicted[2], dy, spans),
                           v[3] - neighbours.second_prediction(predicted[3], dx, spans)))


@njit(cache=True, nogil=True)
def _refine_pair(luma, p0, p1, shape, gain, thorough, first, second, spans, y, x, n, predicted, price, v, best):
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
                cost = (price * _pair_rate(first, second, spans, predicted, v)
                        + _two(luma, p0, p1, shape, gain, thorough, y, x, n, v))
                if cost < best:
                    best, by, bx = cost, v[k], v[k + 1]
            v[k], v[k + 1] = by, bx
            still = still + 1 if by == cy and bx == cx else 0
            if still == 2:
                break


# ---------------------------------------------------------------- the leaf

@njit(cache=True, nogil=True)
def _best_merge(s, y8, x8, n8, count, leaf):
    """-> price of the best candidate, leaf int64 [5], and that of its residual alone."""
    c = neighbours.merge_context(s.grid, y8, x8, n8)
    rate = cost1(s.contexts, c)
    best, residual = BIG, BIG
    for k in range(count):
        c = neighbours.index_context(count, k)
        bits = _leaf_difference(s.luma, s.p0, s.p1, s.shape, s.gain, _BY_BITS, y8 * 8, x8 * 8, n8 * 8, s.found[k])
        price = bits + s.weight * (rate + (0.0 if k == count - 1 else cost0(s.contexts, c)))
        rate += cost1(s.contexts, c)
        if price < best:
            best, residual = price, bits
            neighbours.copy(leaf, s.found[k])
    return best, residual


@njit(cache=True, nogil=True)
def _mode_costs(s, y8, x8, n8, modes):
    """Fill modes float64 [4] with what saying each mode costs, weighted."""
    c = neighbours.merge_context(s.grid, y8, x8, n8)
    own = cost0(s.contexts, c)
    c = C_INTRA + neighbours.like(s.grid, y8, x8, np.int64(INTRA))
    modes[3] = own + cost1(s.contexts, c)
    modes[0] = own + cost0(s.contexts, c)
    if s.spans[1] != 0:
        c = C_BOTH + neighbours.like(s.grid, y8, x8, np.int64(BOTH))
        single = modes[0] + cost0(s.contexts, c)
        modes[2] = modes[0] + cost1(s.contexts, c)
        c = neighbours.which_context(s.grid, y8, x8)
        modes[0], modes[1] = single + cost0(s.contexts, c), single + cost1(s.contexts, c)
    for k in range(4):
        modes[k] *= s.weight


@njit(cache=True, nogil=True)
def best_leaf(s, y8, x8, n8, seeds, seeded, leaf):
    """The best motion for a block as one leaf: leaf int64 [5]. -> its price, and 1 if merged.

    y8, x8, n8: place and size in units of 8. seeds int64 [2, 2]: in (if seeded) the vectors of the larger block, out
    those of this one."""
    y, x, n = y8 * 8, x8 * 8, n8 * 8
    references = 2 if s.spans[1] != 0 else 1
    luma, p0, p1, shape, gain, thorough = s.luma, s.p0, s.p1, s.shape, s.gain, s.thorough
    count = neighbours.candidates(s.grid, s.temporal, s.spans, y8, x8, n8, s.found)
    best, residual = _best_merge(s, y8, x8, n8, count, leaf)
    merged = np.int64(1)
    if residual <= s.enough * n8 * n8:
        neighbours.copy(seeds.reshape(-1), leaf[V0Y:])
        return best, merged
    modes = np.zeros(4)
    _mode_costs(s, y8, x8, n8, modes)
    # The SATD that equals a bit: from the best merge.
    price = s.weight * 3.0 / np.sqrt(s.gain)
    if residual < BIG:
        satd = _leaf_difference(luma, p0, p1, shape, gain, _BY_SATD, y, x, n, leaf)
        price = s.weight * _satd_price(satd, residual, n * n)
    sad_price = 0.5 * price                # SATD of noise is about twice its SAD
    if s.thorough:
        price = s.weight

    trial, v, pair = np.zeros(5, np.int64), np.empty(2, np.int64), np.empty(4, np.int64)
    predicted, spread = np.empty(4, np.int64), np.zeros(2, np.int64)
    single = BIG
    for k in range(references):
        py, px, spread[k] = neighbours.predicted(s.grid, s.temporal, y8, x8, n8, k)
        predicted[2 * k], predicted[2 * k + 1] = py, px
        m = _gather_starts(s, k, y8, x8, n8, py, px, count, seeds, seeded)
        table = s.table[0, spread[k]]
        single = min(single, _search_one(luma, p0 if k == 0 else p1, shape, gain, thorough, s.starts, y, x, n, py, px,
                                         table, price, sad_price, m, v))
        seeds[k, 0], seeds[k, 1] = v[0], v[1]
        trial[MODE], trial[V0Y + 2 * k], trial[V0X + 2 * k] = k, v[0], v[1]
        cost = (_leaf_difference(luma, p0, p1, shape, gain, _BY_BITS, y, x, n, trial) + modes[k]
                + s.weight * _vector_cost(table, v[0] - py, v[1] - px))
        if cost < best:
            best, merged = cost, np.int64(0)
            neighbours.copy(leaf, trial)
    if references == 2:
        # Both: from the two vectors just found, or from the best candidate that uses both.
        least = BIG
        both0, both1 = s.table[1, spread[0]], s.table[1, spread[1]]
        trial[MODE] = BOTH
        for q in range(count + 1):
            if q == count:
                neighbours.copy(trial[V0Y:], seeds.reshape(-1))
            elif s.found[q, MODE] == BOTH:
                neighbours.copy(trial, s.found[q])
            else:
                continue
            cost = (price * _pair_rate(both0, both1, s.spans, predicted, trial[V0Y:])
                    + _two(luma, p0, p1, shape, gain, thorough, y, x, n, trial[V0Y:]))
            if cost < least:
                least = cost
                neighbours.copy(pair, trial[V0Y:])
        if least < BOTH_WITHIN * single:
            _refine_pair(luma, p0, p1, shape, gain, thorough, both0, both1, s.spans, y, x, n, predicted, price,
                         pair, least)
            neighbours.copy(trial[V0Y:], pair)
            cost = (_leaf_difference(luma, p0, p1, shape, gain, _BY_BITS, y, x, n, trial) + modes[2]
                    + s.weight * _pair_rate(both0, both1, s.spans, predicted, pair))
            if cost < best:
                best, merged = cost, np.int64(0)
                neighbours.copy(leaf, trial)
    cost = modes[3] + _intra_bits(luma, s.grey, shape.pitch_x, gain, y, x, n)
    if cost < best:
        best, merged = cost, np.int64(0)
        leaf[MODE] = INTRA
    if merged == 0:
        neighbours.fill_other(leaf, s.spans)
    return best, merged
