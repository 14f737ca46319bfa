"""The coded form of a motion field: a quadtree of blocks 32 -> 16 -> 8, merged with a neighbour or not.

Syntax, blocks of 32 in rows, inside a block in z-order; [..] an adaptive bit, {..} left out where it is implied:

    block(n)  = {[split]} block(n/2) x 4  |  leaf            a block that leaves the picture is split without a bit
    leaf      = [merge = 1] index  |  [merge = 0] mode difference{0} difference{1}
    index     = candidates in a fixed order, doubles taken out, in unary
    mode      = [intra] {[both] {[which]}}                   the second and third where there are two references
    difference= for y, then x: number of binary digits in unary, the digit after the first, the others raw, sign raw

Candidates: left, up, the picture this one refers to at the same place (its vectors scaled to the distances here), up
right, down left, up left, the first's vector for reference 0 with the second's for reference 1, zero. Vectors are
predicted by the component-wise median of left, up and up right; the second of two moves half as far as the first's
difference says. A block that uses one reference gets the vector for the other one filled in on the same straight line
through time, so that every block can serve as a neighbour for both.

One function walks this for all directions (nvc/entropy/bits.py). Decoding ends after a bounded number of steps
whatever the bytes are, and gives vectors within VECTOR_MAX.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.entropy.bits import COST_UNIT, DECODE, ENCODE, MEASURE, TALLY, code_bit, code_raw
from nvc.entropy.range_coder import Decoder, Encoder
from nvc.motion.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion.neighbours import (
    LEFT,
    MODE,
    TOP,
    V0X,
    V0Y,
    V1X,
    candidates,
    copy,
    digits_context,
    empty_grid,
    equal,
    fill_other,
    grid_of,
    index_context,
    like,
    merge_context,
    predicted,
    second_prediction,
    set_leaf,
    split_context,
    temporal_motion,
    which_context,
)
from nvc.motion.prediction import VECTOR_MAX, MotionField, Reference
from nvc.motion.vector_contexts import C_BOTH, C_INTRA, C_SECOND, CANDIDATES, CONTEXTS, DIGITS_MAX, start_contexts
from video.picture import Picture


@njit(cache=True, nogil=True)
def _code_difference(direction, state, buffer, contexts, base, d):
    """One component of a vector difference; base: its first context in C_DIGITS. -> the difference."""
    a = abs(d)
    digits = 0
    while digits < DIGITS_MAX:
        if code_bit(direction, state, buffer, contexts, base + digits, np.int64((a >> digits) != 0)) == 0:
            break
        digits += 1
    if digits == 0:
        return np.int64(0)
    found = np.int64(1)
    if digits > 1:
        found = 2 + code_bit(direction, state, buffer, contexts, C_SECOND + digits, (a >> (digits - 2)) & 1)
    if digits > 2:
        n = digits - 2
        found = (found << n) + code_raw(direction, state, buffer, a & ((np.int64(1) << n) - 1), n)
    if code_raw(direction, state, buffer, np.int64(d < 0), np.int64(1)):
        found = -found
    return found


# ---------------------------------------------------------------- the walk

@njit(cache=True, nogil=True)
def _code_leaf(direction, state, buffer, contexts, grid, temporal, spans, y, x, n, leaf, found):
    """leaf int64 [5]: given, or found by decoding. The grid is filled with it."""
    two = spans[1] != 0
    count = candidates(grid, temporal, spans, y, x, n, found)
    index = np.int64(-1)
    if direction != DECODE:
        for k in range(count):
            if index < 0 and equal(found[k], leaf):
                index = np.int64(k)
    merged = code_bit(direction, state, buffer, contexts, merge_context(grid, y, x, n), np.int64(index >= 0))
    if merged:
        place = 0
        while place < count - 1:
            c = index_context(count, place)
            if code_bit(direction, state, buffer, contexts, c, np.int64(index > place)) == 0:
                break
            place += 1
        copy(leaf, found[place])
        set_leaf(grid, y, x, n, leaf, merged)
        return
    mode = leaf[MODE]
    c = C_INTRA + like(grid, y, x, np.int64(INTRA))
    if code_bit(direction, state, buffer, contexts, c, np.int64(mode == INTRA)):
        mode = np.int64(INTRA)
    elif not two:
        mode = np.int64(FORWARD)
    elif code_bit(direction, state, buffer, contexts, C_BOTH + like(grid, y, x, np.int64(BOTH)),
                  np.int64(mode == BOTH)):
        mode = np.int64(BOTH)
    else:
        mode = code_bit(direction, state, buffer, contexts, which_context(grid, y, x), np.int64(mode == BACKWARD))
    leaf[MODE] = mode
    dy, dx = np.int64(0), np.int64(0)
    for k in range(2):
        if mode in (k, BOTH):
            py, px, spread = predicted(grid, temporal, y, x, n, k)
            both = np.int64(mode == BOTH)
            if both and k == 1:
                py, px = second_prediction(py, dy, spans), second_prediction(px, dx, spans)
            dy = _code_difference(direction, state, buffer, contexts, digits_context(both, spread, 0),
                                  leaf[V0Y + 2 * k] - py)
            dx = _code_difference(direction, state, buffer, contexts, digits_context(both, spread, 1),
                                  leaf[V0X + 2 * k] - px)
            leaf[V0Y + 2 * k] = min(max(py + dy, -VECTOR_MAX), VECTOR_MAX)
            leaf[V0X + 2 * k] = min(max(px + dx, -VECTOR_MAX), VECTOR_MAX)
    fill_other(leaf, spans)
    set_leaf(grid, y, x, n, leaf, merged)


@njit(cache=True, nogil=True)
def _uniform(source, y, x, n):
    for i in range(y + TOP, y + TOP + n):
        for j in range(x + LEFT, x + LEFT + n):
            if not equal(source[i, j], source[y + TOP, x + LEFT]):
                return False
    return True


@njit(cache=True, nogil=True)
def code_block(direction, state, buffer, contexts, grid, temporal, spans, source, y, x):
    """Walk one block of 32 at (y, x), in units of 8. source: a grid that holds the field where it is not decoded."""
    h8, w8 = grid.shape[0] - 2, grid.shape[1] - 6
    leaf = np.zeros(5, np.int64)
    found = np.zeros((CANDIDATES, 5), np.int64)
    split = np.int64(1)
    if y + 4 <= h8 and x + 4 <= w8:
        if direction != DECODE:
            split = np.int64(not _uniform(source, y, x, np.int64(4)))
        split = code_bit(direction, state, buffer, contexts, split_context(grid, y, x, np.int64(4)), split)
    if not split:
        if direction != DECODE:
            copy(leaf, source[y + TOP, x + LEFT])
        _code_leaf(direction, state, buffer, contexts, grid, temporal, spans, y, x, np.int64(4), leaf, found)
        return
    for q in range(4):
        i, j = y + (q >> 1) * 2, x + (q & 1) * 2
        if i >= h8 or j >= w8:
            continue
        split = np.int64(0)
        if direction != DECODE:
            split = np.int64(not _uniform(source, i, j, np.int64(2)))
        split = code_bit(direction, state, buffer, contexts, split_context(grid, i, j, np.int64(2)), split)
        n = 1 if split else 2
        for a in range(i, i + 2, n):
            for b in range(j, j + 2, n):
                if direction != DECODE:
                    copy(leaf, source[a + TOP, b + LEFT])
                _code_leaf(direction, state, buffer, contexts, grid, temporal, spans, a, b, n, leaf, found)


@njit(cache=True, nogil=True)
def _walk(direction, state, buffer, contexts, grid, temporal, spans, source):
    for y in range(0, grid.shape[0] - 2, 4):
        for x in range(0, grid.shape[1] - 6, 4):
            code_block(direction, state, buffer, contexts, grid, temporal, spans, source, y, x)


def checked(spans: tuple[int, int], references: Sequence[Reference]) -> NDArray[np.int64]:
    if len(references) not in (1, 2) or spans[0] == 0 or (spans[1] != 0) != (len(references) == 2):
        raise ValueError(f"spans must be non-zero for each of {len(references)} references, got {spans}")
    return np.array(spans, np.int64)


def encode_field(encoder: Encoder, field: MotionField, references: Sequence[Reference]) -> MotionField:
    """Code the field; -> it as the decoder will have it (the same, with unused vectors filled in).

    Raises ValueError if the spans do not fit the references or a vector is beyond VECTOR_MAX."""
    spans = checked(field.spans, references)
    if field.mode.max() > INTRA or (len(references) == 1 and (field.mode % INTRA > FORWARD).any()):
        raise ValueError(f"field has modes that {len(references)} references do not allow")
    if np.abs(field.vectors.astype(np.int32)).max() > VECTOR_MAX:
        raise ValueError(f"vectors must be within {VECTOR_MAX} quarter samples")
    h8, w8 = field.mode.shape
    source = grid_of(np.ascontiguousarray(field.mode), np.ascontiguousarray(field.vectors), spans)
    grid = empty_grid(h8, w8)
    encoder.reserve(h8 * w8 * 16)
    _walk(ENCODE, encoder.state, encoder.buffer, start_contexts(), grid,
          temporal_motion(references, spans), spans, source)
    return field_of(grid, field.spans)


def decode_field(decoder: Decoder, spans: tuple[int, int], references: Sequence[Reference]) -> MotionField:
    """The field that encode_field coded. spans: this picture's number minus that of each reference (0: none).

    Bad bytes give some field: look at decoder.overrun. Raises ValueError if the spans do not fit the references."""
    distances = checked(spans, references)
    grid = empty_grid(references[0].height // 8, references[0].width // 8)
    _walk(DECODE, decoder.state, decoder.data, start_contexts(), grid,
          temporal_motion(references, distances), distances, grid)
    return field_of(grid, spans)


def field_of(grid: NDArray[np.int16], spans: tuple[int, int]) -> MotionField:
    inside = grid[TOP:-1, LEFT:-5]
    both = np.ascontiguousarray(inside[..., V0Y:V1X + 1]).reshape(*inside.shape[:2], 2, 2)
    return MotionField(inside[..., MODE].astype(np.uint8), both, spans)


def _walked(direction: int, field: MotionField, references: Sequence[Reference], contexts: NDArray[np.int32]) -> int:
    spans = checked(field.spans, references)
    state = np.zeros(3, np.int64)
    source = grid_of(np.ascontiguousarray(field.mode), np.ascontiguousarray(field.vectors), spans)
    _walk(direction, state, np.zeros(1, np.uint8), contexts, empty_grid(*field.mode.shape),
          temporal_motion(references, spans), spans, source)
    return int(state[0])


def field_bits(field: MotionField, references: Sequence[Reference]) -> float:
    """What the field costs, in bits, without coding it."""
    return _walked(MEASURE, field, references, start_contexts()) / COST_UNIT


def tally(field: MotionField, references: Sequence[Reference]) -> NDArray[np.int32]:
    """int32 [CONTEXTS, 2]: how many 0s and 1s each context sees in the field."""
    counts = np.zeros((CONTEXTS, 3), np.int32)
    _walked(TALLY, field, references, counts)
    return counts[:, :2]


def warm() -> None:
    """Compile every kernel into numba's cache."""
    field = MotionField(np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2, 2), np.int16), (1, 0))
    reference = Reference(Picture(*(np.zeros((n, n), np.uint8) for n in (16, 8, 8))), field)
    encoder = Encoder()
    encode_field(encoder, field, [reference])
    decode_field(Decoder(encoder.finish()), (1, 0), [reference])
    field_bits(field, [reference])
