"""Block motion: fields of vectors, reference pictures with their quarter-pel phases, and compensation of a whole field.

Everything here is integer arithmetic and belongs to the decoder (the phases are the encoder's way to the same samples).

A field has one entry for each 8x8 block of luma (4x4 of each chroma plane). A vector is (y, x) in quarter luma samples,
in chroma the same number counts eighths: the block at (y, x) is predicted from the reference at (y + vy/4, x + vx/4).

"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.motion.compensation import BACKWARD, BOTH, CHROMA_RAMP, CHROMA_TAPS, LUMA_RAMP, LUMA_TAPS, compensated
from nvc.motion.weighting import Weight, weighted
from video.picture import Picture

VECTOR_MAX = 8191             # quarter samples; the syntax keeps |vector| within it

MARGIN, REACH = 32, 24        # luma: samples added on each side; how far outside a block (or a phase) may begin
_MARGIN_C = 16                # chroma

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

    def weighted(self, weight: Weight) -> Reference:
        """What is predicted from instead, with that weight; itself where it changes nothing."""
        if weight == Weight():
            return self
        inside = [plane[n:-n, n:-n] for plane, n in ((self.y, MARGIN), (self.u, _MARGIN_C), (self.v, _MARGIN_C))]
        return Reference(weighted(Picture(*inside), weight), self.field)

    @cached_property
    def phases(self) -> NDArray[np.uint8]:
        """uint8 [4 (y), 4 (x), H + 2 REACH, W + 2 REACH]: the luma at every quarter-sample shift. For the encoder."""
        return phases(self.y)

    @cached_property
    def pyramid(self) -> tuple[Plane, Plane]:
        """The padded luma at half and at quarter size. For the encoder."""
        half = halved(self.y)
        return half, halved(half)

    def prepare(self) -> None:
        """Make what the encoder's search takes, now: threads that first met it at the same time would each make it."""
        _ = self.phases, self.pyramid


def predict(field: MotionField, references: Sequence[Reference]) -> tuple[Picture, Picture]:
    """The two predictions of a picture, mid-grey (128) in both where intra. Where no block uses both references, they
    are the same arrays; else they are equal in blocks with one reference, but for the overlap with neighbours.

    references: one or two, of the field's size. Raises ValueError if the field does not fit them."""
    height, width = field.mode.shape[0] * 8, field.mode.shape[1] * 8
    for reference in references:
        if (reference.height, reference.width) != (height, width):
            raise ValueError(f"reference of {reference.width}x{reference.height} for a field of {width}x{height}")
    used = np.bincount(field.mode.reshape(-1), minlength=4)
    if len(references) == 1 and (used[BACKWARD] or used[BOTH]):
        raise ValueError("field uses reference 1, but one reference was given")
    first, second = references[0], references[-1]
    made = []
    for k in range(2 if used[BOTH] else 1):
        args = (np.ascontiguousarray(field.mode), np.ascontiguousarray(field.vectors), k)
        made.append(Picture(compensated(first.y, second.y, *args, 8, LUMA_TAPS, LUMA_RAMP),
                            compensated(first.u, second.u, *args, 4, CHROMA_TAPS, CHROMA_RAMP),
                            compensated(first.v, second.v, *args, 4, CHROMA_TAPS, CHROMA_RAMP)))
    return made[0], made[-1]


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
