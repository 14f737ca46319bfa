"""A plane of a decoded picture, filtered with weights that follow its edges. Normative.

Each block of 4×4 samples has a class: how much it varies, in steps of the quantiser, and in which direction (VVC's
adaptive loop filter, Karczewicz et al. 2021, doi:10.1109/TCSVT.2021.3072297, classifies alike). A sample s becomes

    s + Σ over taps k and limits j:  w[class, k, j] · (clip(a_k - s, ±l_j) + clip(b_k - s, ±l_j))

with a_k, b_k the samples opposite each other of tap k, and limits l that grow with the step: an edge is not smoothed,
noise is (clipped taps: Taquet et al. 2019, doi:10.1109/ICIP.2019.8803542). Weights are fixed, by picture type and step
(train/loop_filter.py fits them by least squares), so that a stream only says whether they are used.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.loop_filter.kernels import AROUND, BLOCK, DIRECTIONS, LANES, filtered, gradients

EDGE = 3                                        # samples around a plane that are read, which repeat its edge
LIMITS = (0.4, 1.0, 2.5)                        # of differences, in steps
ACTIVITY = (0.05, 0.15, 0.4, 1.0, 2.0, 4.0)     # levels of gradients across and down, a sample's mean in steps
WINDOW = (BLOCK + 2 * AROUND) ** 2              # samples whose gradients make a class
KINDS = 9                                       # of directions: none, or one of four that is weak or strong
CLASSES = (len(ACTIVITY) + 1) * KINDS

Plane = NDArray[np.uint8]


def limits_of(t: int) -> NDArray[np.int16]:
    """Limits of differences at step index t, [CLIPS]."""
    return np.array([max(1, round(share * 2.0 ** (t / 16.0))) for share in LIMITS], np.int16)


def levels_of(t: int) -> NDArray[np.int64]:
    """Sums of both gradients of a block from which on its activity is the next, at step index t."""
    return np.array([round(level * WINDOW * 2.0 ** (t / 16.0)) for level in ACTIVITY], np.int64)


@njit(cache=True, nogil=True)
def class_of(across, down, falling, rising, levels):
    """Class of a block from the sums of its four gradients.

    Its direction is that of the pair, straight or diagonal, whose sums differ by the larger factor: none below 3/2,
    weak below 3, strong from there on."""
    activity = 0
    while activity < levels.shape[0] and across + down >= levels[activity]:
        activity += 1
    straight, diagonal = max(across, down), max(falling, rising)
    least, least_diagonal = min(across, down) + 1, min(falling, rising) + 1
    if straight * least_diagonal >= diagonal * least:
        most, other, kind = straight, least, 1 if across > down else 3
    else:
        most, other, kind = diagonal, least_diagonal, 5 if falling > rising else 7
    if 2 * most < 3 * other:
        return activity * 9
    return activity * 9 + kind + (1 if most >= 3 * other else 0)


@njit(cache=True, nogil=True)
def _total(sums, direction, first):
    total = np.int64(0)
    for j in range(first, first + BLOCK + 2 * AROUND):
        total += sums[direction, j]
    return total


@njit(cache=True, nogil=True)
def _classify(padded, levels, wanted, sums, classes):
    pitch, width = padded.shape[1], sums.shape[1]
    for i in range(classes.shape[0]):
        for group in range(wanted.shape[1]):
            if wanted[i, group]:
                # Sums of columns, from AROUND before the first block to AROUND behind the last: more than one group.
                place = (EDGE + i * BLOCK) * pitch + EDGE + group * LANES - AROUND
                gradients(padded, place, pitch, sums, 0, width)
                gradients(padded, place + LANES, pitch, sums, LANES, width)
                for k in range(LANES // BLOCK):
                    x = k * BLOCK
                    classes[i, group * (LANES // BLOCK) + k] = class_of(
                        _total(sums, 0, x), _total(sums, 1, x), _total(sums, 2, x), _total(sums, 3, x), levels)


@njit(cache=True, nogil=True)
def _filter(padded, wanted, classes, weights, limits, target):
    pitch, out_pitch = padded.shape[1], target.shape[1]
    size = weights.shape[1]
    for i in range(wanted.shape[0]):
        for group in range(wanted.shape[1]):
            if wanted[i, group]:
                k = group * (LANES // BLOCK)
                filtered(padded, (EDGE + i * BLOCK) * pitch + EDGE + group * LANES, pitch, weights, 0,
                         classes[i, k] * size, classes[i, k + 1] * size, classes[i, k + 2] * size,
                         classes[i, k + 3] * size, limits, 0, target, i * BLOCK * out_pitch + group * LANES, out_pitch)


def _padded(plane: Plane) -> Plane:
    """With what is read around it, and room for whole groups of LANES samples."""
    return np.pad(plane, ((EDGE, EDGE), (EDGE, EDGE + -plane.shape[1] % LANES + LANES)), mode="edge")


def _classes(padded: Plane, t: int, wanted: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Class of each block in the groups wanted [rows of blocks, groups of LANES samples], 0 in others."""
    classes = np.zeros((wanted.shape[0], wanted.shape[1] * (LANES // BLOCK)), np.int32)
    _classify(padded, levels_of(t), wanted, np.empty((len(DIRECTIONS), 2 * LANES), np.int16), classes)
    return classes


def classify(plane: Plane, t: int) -> NDArray[np.int32]:
    """Class of each block [H/4, W/4] of a plane [H, W], sides multiples of 4, in a picture of step index t."""
    wanted = np.ones((plane.shape[0] // BLOCK, -(-plane.shape[1] // LANES)), np.bool_)
    return _classes(_padded(plane), t, wanted)[:, : plane.shape[1] // BLOCK]


def filter_plane(plane: Plane, t: int, weights: NDArray[np.int16], coded: NDArray[np.bool_]) -> Plane:
    """The plane [H, W] filtered where `coded` says, a grid of its tiles.

    t: step index of the picture; weights [CLASSES, TAPS · CLIPS · BLOCK]: in 1/1024, each BLOCK times."""
    side, width = plane.shape[0] // coded.shape[0], plane.shape[1]
    tiles = np.zeros((coded.shape[0], -(-width // LANES), LANES // side), np.bool_)     # of each group of samples
    tiles.reshape(coded.shape[0], -1)[:, : coded.shape[1]] = coded
    wanted = tiles.any(2).repeat(side // BLOCK, 0)
    padded = _padded(plane)
    made = np.empty((plane.shape[0], tiles.shape[1] * LANES), np.uint8)
    _filter(padded, wanted, _classes(padded, t, wanted), weights, limits_of(t), made)
    if coded.all():
        return np.ascontiguousarray(made[:, :width])
    return np.where(coded.repeat(side, 0).repeat(side, 1), made[:, :width], plane)
