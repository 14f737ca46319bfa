"""Block motion: fields of vectors, reference pictures with their quarter-pel phases, and compensation of a whole field.

Everything here is integer arithmetic and belongs to the decoder (the phases are the encoder's way to the same samples).

A field has one entry for each 8x8 block of luma (4x4 of each chroma plane). A vector is (y, x) in quarter luma samples,
in chroma the same number counts eighths: the block at (y, x) is predicted from the reference at (y + vy/4, x + vx/4).

Interpolation is separable: the horizontal taps first, kept unrounded in int16 (8 bit x 64 fits: the positive taps sum
to at most 88, the negative ones to at least -24), then the vertical taps, a rounding half, a shift by 12 and a clamp
to 0..255. The taps are those of H.265 (8.5.3.3.3): eight for luma, four for chroma. They sum to 64, so a plane
continued by its edge samples is interpolated to the same edge sample; a block that lies REACH or more outside is
therefore moved back to REACH without a change of any sample, and vectors need no limit from the picture's size.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from picture import Picture

FORWARD, BACKWARD, BOTH, INTRA = 0, 1, 2, 3
VECTOR_MAX = 8191             # quarter samples; the syntax keeps |vector| within it

MARGIN, REACH = 32, 24        # luma: samples added on each side; how far outside a block (or a phase) may begin
_MARGIN_C, _REACH_C = 16, 12  # chroma
_TAPS_Y = np.array([[0, 0, 0, 64, 0, 0, 0, 0], [-1, 4, -10, 58, 17, -5, 1, 0],
                    [-1, 4, -11, 40, 40, -11, 4, -1], [0, 1, -5, 17, 58, -10, 4, -1]], np.int32)
_TAPS_C = np.array([[0, 64, 0, 0], [-2, 58, 10, -2], [-4, 54, 16, -2], [-6, 46, 28, -4],
                    [-4, 36, 36, -4], [-4, 28, 46, -6], [-2, 16, 54, -4], [-2, 10, 58, -2]], np.int32)

Plane = NDArray[np.uint8]


class MotionField(NamedTuple):
    """The motion of one picture."""
    mode: NDArray[np.uint8]        # [H/8, W/8]: FORWARD (reference 0), BACKWARD (reference 1), BOTH, INTRA
    vectors: NDArray[np.int16]     # [H/8, W/8, 2 references, (y, x)]; those that the mode does not use are filled in
    spans: tuple[int, int]         # picture number minus that of reference 0, 1: positive = the past; 0 = no reference


class Reference:
    """A decoded picture, padded to multiples of 16, made ready to predict from; field: the motion it was coded with.

    A picture that was coded intra has no field.
    Raises ValueError if the picture's sizes do not fit together or are no multiples of 16."""

    def __init__(self, picture: Picture, field: MotionField | None = None) -> None:
        y, u, v = picture
        height, width = y.shape
        if height % 16 or width % 16 or not height * width:
            raise ValueError(f"luma size must be a multiple of 16, got {width}x{height}")
        if u.shape != (height // 2, width // 2) or v.shape != u.shape:
            raise ValueError(f"u and v must be {(height // 2, width // 2)}, got {u.shape} and {v.shape}")
        self.height, self.width, self.field = height, width, field
        # Contiguous and writable, so that each kernel is compiled for one type only.
        y, u, v = (np.require(plane, np.uint8, ["C", "W"]) for plane in picture)
        self.y, self.u, self.v = padded(y, MARGIN), padded(u, _MARGIN_C), padded(v, _MARGIN_C)

    @cached_property
    def phases(self) -> NDArray[np.uint8]:
        """uint8 [4 (y), 4 (x), H + 2 REACH, W + 2 REACH]: the luma at every quarter-sample shift. For the encoder."""
        return phases(self.y)

    @cached_property
    def pyramid(self) -> tuple[Plane, Plane]:
        """The padded luma at half and at quarter size. For the encoder."""
        half = halved(self.y)
        return half, halved(half)


def predict(field: MotionField, references: Sequence[Reference]) -> tuple[Picture, Picture]:
    """The two predictions of a picture: equal where one reference is used, mid-grey (128) in both where intra.

    references: one or two, of the field's size. Raises ValueError if the field does not fit them."""
    first, second = references[0], references[-1]
    height, width = field.mode.shape[0] * 8, field.mode.shape[1] * 8
    for reference in references:
        if (reference.height, reference.width) != (height, width):
            raise ValueError(f"reference of {reference.width}x{reference.height} for a field of {width}x{height}")
    if len(references) == 1 and ((field.mode == BACKWARD) | (field.mode == BOTH)).any():
        raise ValueError("field uses reference 1, but one reference was given")
    made = []
    for a, b, chroma in ((first.y, second.y, False), (first.u, second.u, True), (first.v, second.v, True)):
        shape = (height // 2, width // 2) if chroma else (height, width)
        p0, p1 = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        compensate = _compensate_chroma if chroma else _compensate_luma
        compensate(a, field.mode, field.vectors, 0, p0)
        compensate(b, field.mode, field.vectors, 1, p1)
        _share(field.mode, p0, p1)
        made.append((p0, p1))
    return Picture(*(p[0] for p in made)), Picture(*(p[1] for p in made))


@njit(cache=True, nogil=True)
def padded(plane, margin):
    """uint8 [H + 2 margin, W + 2 margin], continued by its edge samples."""
    h, w = plane.shape
    out = np.empty((h + 2 * margin, w + 2 * margin), np.uint8)
    for i in range(h + 2 * margin):
        source, target = plane[min(max(i - margin, 0), h - 1)], out[i]
        target[:margin] = source[0]
        for j in range(w):
            target[margin + j] = source[j]
        target[margin + w:] = source[w - 1]
    return out


# ---------------------------------------------------------------- compensation

@njit(cache=True, nogil=True)
def _rows8(source, target, taps):
    """int16 target [n] = taps * uint8 source [n + 7]."""
    a, b, c, d, e, f, g, h = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    for j in range(target.shape[0]):
        target[j] = np.int16(
            a * np.int32(source[j]) + b * np.int32(source[j + 1]) + c * np.int32(source[j + 2])
            + d * np.int32(source[j + 3]) + e * np.int32(source[j + 4]) + f * np.int32(source[j + 5])
            + g * np.int32(source[j + 6]) + h * np.int32(source[j + 7]))


@njit(cache=True, nogil=True)
def _columns8(s0, s1, s2, s3, s4, s5, s6, s7, target, taps):
    """uint8 target [n] = rounded taps * int16 rows s0..s7 [n]."""
    a, b, c, d, e, f, g, h = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    for j in range(target.shape[0]):
        s = np.int32(a * np.int32(s0[j]) + b * np.int32(s1[j]) + c * np.int32(s2[j]) + d * np.int32(s3[j])
                     + e * np.int32(s4[j]) + f * np.int32(s5[j]) + g * np.int32(s6[j]) + h * np.int32(s7[j]) + 2048)
        target[j] = np.uint8(min(max(s >> np.int32(12), np.int32(0)), np.int32(255)))


@njit(cache=True, nogil=True)
def _rows4(source, target, taps):
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    for j in range(target.shape[0]):
        target[j] = np.int16(a * np.int32(source[j]) + b * np.int32(source[j + 1])
                             + c * np.int32(source[j + 2]) + d * np.int32(source[j + 3]))


@njit(cache=True, nogil=True)
def _columns4(s0, s1, s2, s3, target, taps):
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    for j in range(target.shape[0]):
        s = np.int32(a * np.int32(s0[j]) + b * np.int32(s1[j]) + c * np.int32(s2[j]) + d * np.int32(s3[j]) + 2048)
        target[j] = np.uint8(min(max(s >> np.int32(12), np.int32(0)), np.int32(255)))


@njit(cache=True, nogil=True)
def _run(mode, vectors, k, i, j, limit):
    """How many blocks from (i, j) on are alike for reference k, at most limit; 0 if (i, j) does not use it."""
    if mode[i, j] != k and mode[i, j] != BOTH:
        return 0
    n = 1
    while (n < limit and (mode[i, j + n] == k or mode[i, j + n] == BOTH)
           and vectors[i, j + n, k, 0] == vectors[i, j, k, 0] and vectors[i, j + n, k, 1] == vectors[i, j, k, 1]):
        n += 1
    return n


@njit(cache=True, nogil=True)
def _compensate_luma(padded, mode, vectors, k, out):
    """Fill the blocks of out [H, W] that use reference k; blocks of one vector side by side are done as one."""
    h8, w8 = mode.shape
    rows = np.empty((15, w8 * 8), np.int16)
    for i in range(h8):
        j = 0
        while j < w8:
            vy, vx = np.int64(vectors[i, j, k, 0]), np.int64(vectors[i, j, k, 1])
            x = j * 8 + (vx >> 2)
            # Blocks that are moved back to REACH go one by one.
            limit = min(w8 - j, max((w8 * 8 + REACH - x) >> 3, 1)) if x >= -REACH else 1
            n = _run(mode, vectors, k, i, j, limit)
            if n == 0:
                j += 1
                continue
            y = min(max(i * 8 + (vy >> 2), -REACH), h8 * 8 + REACH - 8) + MARGIN
            x = min(max(x, -REACH), w8 * 8 + REACH - 8) + MARGIN
            w = n * 8
            if vy & 3 == 0 and vx & 3 == 0:
                for a in range(8):
                    out[i * 8 + a, j * 8: j * 8 + w] = padded[y + a, x: x + w]
            else:
                for a in range(15):
                    _rows8(padded[y + a - 3, x - 3: x + w + 4], rows[a, :w], _TAPS_Y[vx & 3])
                for a in range(8):
                    _columns8(rows[a, :w], rows[a + 1, :w], rows[a + 2, :w], rows[a + 3, :w], rows[a + 4, :w],
                              rows[a + 5, :w], rows[a + 6, :w], rows[a + 7, :w],
                              out[i * 8 + a, j * 8: j * 8 + w], _TAPS_Y[vy & 3])
            j += n


@njit(cache=True, nogil=True)
def _compensate_chroma(padded, mode, vectors, k, out):
    """The same for a chroma plane out [H/2, W/2], in blocks of 4x4."""
    h8, w8 = mode.shape
    rows = np.empty((7, w8 * 4), np.int16)
    for i in range(h8):
        j = 0
        while j < w8:
            vy, vx = np.int64(vectors[i, j, k, 0]), np.int64(vectors[i, j, k, 1])
            x = j * 4 + (vx >> 3)
            limit = min(w8 - j, max((w8 * 4 + _REACH_C - x) >> 2, 1)) if x >= -_REACH_C else 1
            n = _run(mode, vectors, k, i, j, limit)
            if n == 0:
                j += 1
                continue
            y = min(max(i * 4 + (vy >> 3), -_REACH_C), h8 * 4 + _REACH_C - 4) + _MARGIN_C
            x = min(max(x, -_REACH_C), w8 * 4 + _REACH_C - 4) + _MARGIN_C
            w = n * 4
            if vy & 7 == 0 and vx & 7 == 0:
                for a in range(4):
                    out[i * 4 + a, j * 4: j * 4 + w] = padded[y + a, x: x + w]
            else:
                for a in range(7):
                    _rows4(padded[y + a - 1, x - 1: x + w + 2], rows[a, :w], _TAPS_C[vx & 7])
                for a in range(4):
                    _columns4(rows[a, :w], rows[a + 1, :w], rows[a + 2, :w], rows[a + 3, :w],
                              out[i * 4 + a, j * 4: j * 4 + w], _TAPS_C[vy & 7])
            j += n


@njit(cache=True, nogil=True)
def _share(mode, p0, p1):
    """Copy the one prediction of a block with one reference into the other plane; grey where intra."""
    h8, w8 = mode.shape
    n = p0.shape[0] // h8
    for i in range(h8):
        for j in range(w8):
            m, x = mode[i, j], j * n
            if m == BOTH:
                continue
            for a in range(i * n, i * n + n):
                if m == FORWARD:
                    for b in range(n):
                        p1[a, x + b] = p0[a, x + b]
                elif m == BACKWARD:
                    for b in range(n):
                        p0[a, x + b] = p1[a, x + b]
                else:
                    for b in range(n):
                        p0[a, x + b] = 128
                        p1[a, x + b] = 128


# ---------------------------------------------------------------- for the encoder

@njit(cache=True, nogil=True)
def _four_rows(s, t0, t1, t2, t3):
    """_rows8 with all four sets of taps at once, written out so that they become shifts and adds."""
    for j in range(t0.shape[0]):
        a, b, c, d = np.int32(s[j]), np.int32(s[j + 1]), np.int32(s[j + 2]), np.int32(s[j + 3])
        e, f, g, h = np.int32(s[j + 4]), np.int32(s[j + 5]), np.int32(s[j + 6]), np.int32(s[j + 7])
        t0[j] = np.int16(64 * d)
        t1[j] = np.int16(-a + 4 * b - 10 * c + 58 * d + 17 * e - 5 * f + g)
        t2[j] = np.int16(-a + 4 * b - 11 * c + 40 * d + 40 * e - 11 * f + 4 * g - h)
        t3[j] = np.int16(b - 5 * c + 17 * d + 58 * e - 10 * f + 4 * g - h)


@njit(cache=True, nogil=True)
def _round(s):
    return np.uint8(min(max(np.int32(s) >> np.int32(12), np.int32(0)), np.int32(255)))


@njit(cache=True, nogil=True)
def _four_columns(s0, s1, s2, s3, s4, s5, s6, s7, o0, o1, o2, o3):
    """_columns8 with all four sets of taps at once."""
    for j in range(o0.shape[0]):
        a, b, c, d = np.int32(s0[j]), np.int32(s1[j]), np.int32(s2[j]), np.int32(s3[j])
        e, f, g, h = np.int32(s4[j]), np.int32(s5[j]), np.int32(s6[j]), np.int32(s7[j])
        o0[j] = _round(64 * d + 2048)
        o1[j] = _round(-a + 4 * b - 10 * c + 58 * d + 17 * e - 5 * f + g + 2048)
        o2[j] = _round(-a + 4 * b - 11 * c + 40 * d + 40 * e - 11 * f + 4 * g - h + 2048)
        o3[j] = _round(b - 5 * c + 17 * d + 58 * e - 10 * f + 4 * g - h + 2048)


@njit(cache=True, nogil=True)
def phases(padded):
    """uint8 [4 (y), 4 (x), H + 2 REACH, W + 2 REACH] of a luma plane padded by MARGIN: every quarter-sample shift.

    Entry [fy, fx, REACH + y, REACH + x] is the sample at (y + fy/4, x + fx/4)."""
    k = MARGIN - REACH
    h, w = padded.shape[0] - 2 * k, padded.shape[1] - 2 * k
    out = np.empty((4, 4, h, w), np.uint8)
    ring = np.empty((4, 8, w), np.int16)     # the last eight rows, at each of the four horizontal shifts
    for i in range(h + 7):
        r = i & 7
        _four_rows(padded[i + k - 3, k - 3: k + w + 4], ring[0, r], ring[1, r], ring[2, r], ring[3, r])
        if i < 7:
            continue
        o = i - 7
        for x in range(4):
            t = ring[x]
            _four_columns(t[o & 7], t[(o + 1) & 7], t[(o + 2) & 7], t[(o + 3) & 7], t[(o + 4) & 7], t[(o + 5) & 7],
                          t[(o + 6) & 7], t[(o + 7) & 7], out[0, x, o], out[1, x, o], out[2, x, o], out[3, x, o])
    return out


@njit(cache=True, nogil=True)
def halved(plane):
    """Means of 2x2 samples, rounded."""
    h, w = plane.shape[0] // 2, plane.shape[1] // 2
    out = np.empty((h, w), np.uint8)
    for i in range(h):
        a, b, o = plane[2 * i], plane[2 * i + 1], out[i]
        for j in range(w):
            s = np.int32(a[2 * j]) + np.int32(a[2 * j + 1]) + np.int32(b[2 * j]) + np.int32(b[2 * j + 1]) + 2
            o[j] = np.uint8(np.int32(s) >> np.int32(2))
    return out


def warm() -> None:
    """Compile every kernel into numba's cache."""
    grey = Picture(np.full((16, 16), 128, np.uint8), np.full((8, 8), 128, np.uint8), np.full((8, 8), 128, np.uint8))
    reference = Reference(grey)
    field = MotionField(np.full((2, 2), BOTH, np.uint8), np.ones((2, 2, 2, 2), np.int16), (1, -1))
    predict(field, [reference, reference])
    _ = reference.phases
