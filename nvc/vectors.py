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

One function walks this for all directions (nvc/bits.py). Decoding ends after a bounded number of steps whatever the
bytes are, and gives vectors within VECTOR_MAX.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.bits import COST_UNIT, DECODE, ENCODE, MEASURE, TALLY, code_bit, code_raw
from nvc.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion import VECTOR_MAX, MotionField, Reference
from nvc.rangecoder import Decoder, Encoder
from nvc.vector_contexts import (
    C_BOTH,
    C_DIGITS,
    C_INDEX,
    C_INTRA,
    C_MERGE,
    C_SECOND,
    C_SPLIT,
    C_WHICH,
    CANDIDATES,
    CONTEXTS,
    DIGITS_MAX,
    start_contexts,
)
from picture import Picture

# What the walk knows of each 8x8 block, int16 [H/8 + 2, W/8 + 6, 7]: one row above, one column left, five right of the
# picture stay MODE = NONE, so that no neighbour needs a test for the border. Blocks not yet coded are NONE as well.
MODE, V0Y, V0X, V1Y, V1X, DEPTH, MERGED = range(7)
NONE = -1
TOP, LEFT = 1, 1

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


# ---------------------------------------------------------------- what the neighbours tell

@njit(cache=True, nogil=True)
def copy(target, source):
    """target[:] = source[:len(target)]; numba's own way compiles the making of its error message each time."""
    for k in range(target.shape[0]):
        target[k] = source[k]


@njit(cache=True, nogil=True)
def scaled(v, span, by):
    """v (quarter samples over `by` pictures) for `span` pictures, to the nearest, within VECTOR_MAX."""
    if by < 0:
        span, by = -span, -by
    return min(max((2 * v * span + by) // (2 * by), -VECTOR_MAX), VECTOR_MAX)


@njit(cache=True, nogil=True)
def following(p, d, spans):
    """Prediction p of the second vector's component, moved half as far as the first's difference d lets expect where
    motion is a straight line through time."""
    return min(max(p + scaled(d, spans[1], 2 * spans[0]), -VECTOR_MAX), VECTOR_MAX)


@njit(cache=True, nogil=True)
def fill_other(leaf, spans):
    """Put the vector that the leaf's mode does not use on the straight line of the other; zeros where intra."""
    mode = leaf[MODE]
    if mode == INTRA:
        leaf[V0Y:V1X + 1] = 0
    elif spans[1] == 0:
        leaf[V1Y], leaf[V1X] = 0, 0
    elif mode == FORWARD:
        leaf[V1Y], leaf[V1X] = scaled(leaf[V0Y], spans[1], spans[0]), scaled(leaf[V0X], spans[1], spans[0])
    elif mode == BACKWARD:
        leaf[V0Y], leaf[V0X] = scaled(leaf[V1Y], spans[0], spans[1]), scaled(leaf[V1X], spans[0], spans[1])


@njit(cache=True, nogil=True)
def _equal(a, b):
    return (a[MODE] == b[MODE] and a[V0Y] == b[V0Y] and a[V0X] == b[V0X] and a[V1Y] == b[V1Y] and a[V1X] == b[V1X])


@njit(cache=True, nogil=True)
def _offer(found, count, motion):
    """Add a candidate unless it is none, intra or there already; -> how many there are."""
    if motion[MODE] == NONE or motion[MODE] == INTRA:
        return count
    for k in range(count):
        if _equal(found[k], motion):
            return count
    for k in range(V1X + 1):
        found[count, k] = motion[k]
    return count + 1


@njit(cache=True, nogil=True)
def candidates(grid, temporal, spans, y, x, n, found):
    """Fill found int64 [CANDIDATES, 5] with what the block of n x n (in units of 8) may merge with; -> count."""
    gy, gx = y + TOP, x + LEFT
    count = _offer(found, np.int64(0), grid[gy + n - 1, gx - 1])
    count = _offer(found, count, grid[gy - 1, gx + n - 1])
    count = _offer(found, count, temporal[y + (n >> 1), x + (n >> 1)])
    count = _offer(found, count, grid[gy - 1, gx + n])
    count = _offer(found, count, grid[gy + n, gx - 1])
    count = _offer(found, count, grid[gy - 1, gx - 1])
    last = np.zeros(5, np.int64)
    last[MODE] = BOTH if spans[1] else FORWARD
    if spans[1] and 1 < count < CANDIDATES - 1:
        copy(last[V0Y:V1Y], found[0, V0Y:])
        copy(last[V1Y:], found[1, V1Y:])
        count = _offer(found, count, last)
        last[V0Y:] = 0
    return _offer(found, count, last)


@njit(cache=True, nogil=True)
def _median(a, b, c):
    return max(min(a, b), min(max(a, b), c))


@njit(cache=True, nogil=True)
def predicted(grid, temporal, y, x, n, k):
    """-> (y, x) that a vector for reference k is predicted as, and how much the neighbours differ: 0, 1 or 2."""
    gy, gx = y + TOP, x + LEFT
    left, up, right = grid[gy, gx - 1], grid[gy - 1, gx], grid[gy - 1, gx + n]
    if right[MODE] == NONE:
        right = grid[gy - 1, gx - 1]
    a, b, c = left[MODE] >= 0 and left[MODE] != INTRA, up[MODE] >= 0 and up[MODE] != INTRA, \
        right[MODE] >= 0 and right[MODE] != INTRA
    vy, vx = V0Y + 2 * k, V0X + 2 * k
    if not (a or b or c):
        col = temporal[y + (n >> 1), x + (n >> 1)]
        if col[MODE] == NONE:
            return np.int64(0), np.int64(0), 2
        return np.int64(col[vy]), np.int64(col[vx]), 2
    # One or two that are missing take the place of one that is there.
    if not a:
        left = up if b else right
    if not b:
        up = left
    if not c:
        right = up if b else left
    py = _median(np.int64(left[vy]), np.int64(up[vy]), np.int64(right[vy]))
    px = _median(np.int64(left[vx]), np.int64(up[vx]), np.int64(right[vx]))
    spread = (abs(np.int64(left[vy]) - up[vy]) + abs(np.int64(left[vx]) - up[vx])
              + abs(np.int64(right[vy]) - up[vy]) + abs(np.int64(right[vx]) - up[vx]))
    if not (a and b):
        spread = max(spread, 3)
    return py, px, 0 if spread < 3 else (1 if spread < 16 else 2)


@njit(cache=True, nogil=True)
def digits_context(both, spread, component):
    return C_DIGITS + ((both * 3 + spread) * 2 + component) * DIGITS_MAX


@njit(cache=True, nogil=True)
def like(grid, y, x, mode):
    """How many of the blocks left and up have this mode: 0, 1, 2."""
    gy, gx = y + TOP, x + LEFT
    return np.int64(grid[gy, gx - 1, MODE] == mode) + np.int64(grid[gy - 1, gx, MODE] == mode)


@njit(cache=True, nogil=True)
def split_context(grid, y, x, n):
    """n: 4 for a block of 32, 2 for one of 16."""
    gy, gx, depth = y + TOP, x + LEFT, np.int64(n == 2)
    return C_SPLIT + depth * 3 + np.int64(grid[gy, gx - 1, DEPTH] > depth) + np.int64(grid[gy - 1, gx, DEPTH] > depth)


@njit(cache=True, nogil=True)
def merge_context(grid, y, x, n):
    gy, gx = y + TOP, x + LEFT
    return C_MERGE + 3 * (2 - (n >> 1)) + np.int64(grid[gy, gx - 1, MERGED]) + np.int64(grid[gy - 1, gx, MERGED])


@njit(cache=True, nogil=True)
def index_context(count, k):
    return C_INDEX + count * CANDIDATES + k


@njit(cache=True, nogil=True)
def which_context(grid, y, x):
    return C_WHICH + 2 + like(grid, y, x, np.int64(BACKWARD)) - like(grid, y, x, np.int64(FORWARD))


# ---------------------------------------------------------------- the walk

@njit(cache=True, nogil=True)
def set_leaf(grid, y, x, n, leaf, merged):
    """Write a leaf into the grid."""
    for i in range(y + TOP, y + TOP + n):
        for j in range(x + LEFT, x + LEFT + n):
            for k in range(V1X + 1):
                grid[i, j, k] = leaf[k]
            grid[i, j, DEPTH] = 0 if n == 4 else (1 if n == 2 else 2)
            grid[i, j, MERGED] = merged


@njit(cache=True, nogil=True)
def _code_leaf(direction, state, buffer, contexts, grid, temporal, spans, y, x, n, leaf, found):
    """leaf int64 [5]: given, or found by decoding. The grid is filled with it."""
    two = spans[1] != 0
    count = candidates(grid, temporal, spans, y, x, n, found)
    index = np.int64(-1)
    if direction != DECODE:
        for k in range(count):
            if index < 0 and _equal(found[k], leaf):
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
                py, px = following(py, dy, spans), following(px, dx, spans)
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
            if not _equal(source[i, j], source[y + TOP, x + LEFT]):
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


# ---------------------------------------------------------------- setting it up

@njit(cache=True, nogil=True)
def empty_grid(h8, w8):
    grid = np.zeros((h8 + 2, w8 + 6, 7), np.int16)
    grid[:, :, MODE] = NONE
    return grid


@njit(cache=True, nogil=True)
def _grid_of(mode, vectors, spans):
    """A grid that holds a whole field, with the unused vectors filled in the one way that counts."""
    h8, w8 = mode.shape
    grid = empty_grid(h8, w8)
    leaf = np.zeros(5, np.int64)
    for y in range(h8):
        for x in range(w8):
            leaf[MODE] = mode[y, x]
            copy(leaf[V0Y:], vectors[y, x].reshape(-1))
            fill_other(leaf, spans)
            set_leaf(grid, y, x, np.int64(1), leaf, np.int64(0))
    return grid


@njit(cache=True, nogil=True)
def _add_temporal(temporal, mode, vectors, theirs, ours):
    """Where temporal int16 [H/8, W/8, 5] has nothing yet, put a reference's motion, scaled from its spans to ours."""
    h8, w8 = mode.shape
    leaf = np.zeros(5, np.int64)
    for y in range(h8):
        for x in range(w8):
            m = mode[y, x]
            if temporal[y, x, MODE] != NONE or m == INTRA:
                continue
            leaf[MODE] = BOTH if ours[1] else FORWARD
            for k in range(2):
                # Its vector that points to the same side in time as ours, if it used both.
                use = np.int64(m)
                if m == BOTH:
                    use = np.int64((theirs[0] > 0) != (ours[k] > 0))
                if ours[k]:
                    leaf[V0Y + 2 * k] = scaled(np.int64(vectors[y, x, use, 0]), ours[k], theirs[use])
                    leaf[V0X + 2 * k] = scaled(np.int64(vectors[y, x, use, 1]), ours[k], theirs[use])
                else:
                    leaf[V0Y + 2 * k], leaf[V0X + 2 * k] = 0, 0
            for k in range(5):
                temporal[y, x, k] = leaf[k]


def temporal_motion(references: Sequence[Reference], spans: NDArray[np.int64]) -> NDArray[np.int16]:
    """int16 [H/8, W/8, 5] (mode, v0y, v0x, v1y, v1x): motion that the references suggest; mode NONE where they do not.

    The reference whose own vectors reach less far in time goes first; the others fill what it coded intra."""
    shape = (references[0].height // 8, references[0].width // 8)
    temporal = np.zeros((*shape, 5), np.int16)
    temporal[..., MODE] = NONE
    fields = [r.field for r in references if r.field is not None]
    for field in sorted(fields, key=lambda f: max(abs(s) for s in f.spans)):
        if any(field.spans):
            _add_temporal(temporal, field.mode, field.vectors, np.array(field.spans, np.int64), spans)
    return temporal


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
    source = _grid_of(np.ascontiguousarray(field.mode), np.ascontiguousarray(field.vectors), spans)
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
    return MotionField(inside[..., MODE].astype(np.uint8), inside[..., V0Y:V1X + 1].reshape(*inside.shape[:2], 2, 2),
                       spans)


def _walked(direction: int, field: MotionField, references: Sequence[Reference], contexts: NDArray[np.int32]) -> int:
    spans = checked(field.spans, references)
    state = np.zeros(3, np.int64)
    source = _grid_of(np.ascontiguousarray(field.mode), np.ascontiguousarray(field.vectors), spans)
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
