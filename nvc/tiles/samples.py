"""Samples coded one by one, without loss: text, lines, icons, flat areas. Normative.

A transform spreads a sharp edge over all its coefficients; yet on a screen the same few samples stand around the same
sample again and again, in each letter of a kind. So a sample is guessed: by what stood there when its neighbours were
last the same, in three sizes of neighbourhood, largest first (prediction by partial matching, Cleary and Witten 1984,
with one candidate for each order); by the picture's prediction; by the sample on its left.

    sample = {[hit = 0]} for each guess that fails, then [hit = 1]  |  [bit] × 8, most significant first

[..] an adaptive bit; a guess that another has made before it, or of a neighbourhood that was not met yet, is left out.
Its context: which guess, how often it was right, how many of the neighbours are equal; luma and chroma separately.
Planes are coded one after the other, tiles of a plane in rows, samples of a tile in rows. A neighbour that is not coded
yet, or in a tile of another kind, is what the picture's prediction has there; outside the picture it is the nearest
one inside.

One function walks this for all directions (nvc/entropy/bits.py).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.entropy.bits import COST_UNIT, DECODE, ENCODE, MEASURE, code_bit
from nvc.entropy.range_coder import Decoder, Encoder, fresh_contexts
from nvc.tiles.kinds import SAMPLES, TILE
from video.picture import Picture

ORDERS, GUESSES = 3, 5                  # neighbourhoods; with prediction and left neighbour
CONFIDENT = 7                           # a guess is counted as right at most so often in a row
CELLS = 1 << 16                         # of a table of guesses, by neighbourhoods' hashes
_ALIKE = 4                              # how many of three neighbours equal the next one
_HIT_CONTEXTS = GUESSES * (CONFIDENT + 1) * _ALIKE
_CONTEXTS = 2 * (_HIT_CONTEXTS + 256)   # and of a binary tree of values; luma, chroma
# Probability that a guess fails, counted over 22 recordings of terminals and two rendered clips: luma, chroma; by the
# neighbourhoods' guesses that were right 1 … CONFIDENT times, prediction, left; by how many neighbours are alike.
_MISSES = (
    ((.144, .107, .148, .116), (.077, .058, .084, .042), (.064, .040, .057, .076), (.055, .021, .032, .024),
     (.044, .021, .035, .021), (.043, .012, .022, .070), (.013, .004, .003, .003), (.290, .287, .270, .054),
     (.248, .241, .200, .030), (.207, .201, .165, .026), (.140, .092, .112, .014), (.145, .091, .112, .012),
     (.172, .057, .119, .015), (.077, .027, .053, .013), (.557, .406, .486, .349), (.558, .557, .377, .147),
     (.501, .341, .285, .020), (.336, .229, .216, .066), (.332, .158, .177, .044), (.397, .295, .173, .058),
     (.336, .088, .077, .036), (.772, .695, .676, .810), (.801, .813, .556, .281)),
    ((.339, .326, .283, .135), (.262, .203, .173, .052), (.221, .192, .130, .043), (.141, .090, .059, .016),
     (.112, .051, .052, .016), (.084, .048, .051, .009), (.056, .022, .004, .003), (.312, .259, .308, .288),
     (.277, .235, .322, .224), (.290, .206, .291, .195), (.184, .153, .198, .125), (.130, .112, .181, .130),
     (.120, .069, .093, .087), (.088, .039, .024, .015), (.590, .417, .375, .099), (.621, .397, .347, .050),
     (.570, .485, .314, .044), (.608, .415, .324, .023), (.486, .414, .333, .021), (.560, .400, .462, .013),
     (.656, .539, .351, .021), (.871, .843, .832, .035), (.887, .795, .687, .363)),
)
_CONFIDENCE = 6                         # how many bits that counts as


@njit(cache=True, nogil=True)
def _mixed(key, value):
    """Hash of a neighbourhood and one more sample, 32 bits."""
    mixed = ((key ^ (value + 0x9E3779B1)) * 0x85EBCA6B) & 0xFFFFFFFF
    return mixed ^ (mixed >> 15)


@njit(cache=True, nogil=True)
def _neighbour(image, i, j):
    """The sample at (i, j), or the nearest one inside, of what precedes it: no row is read that lies under `i`."""
    return np.int64(image[max(i, 0), min(max(j, 0), image.shape[1] - 1)])


@njit(cache=True, nogil=True)
def _look_up(plane, image, luma, other, i, j, cells):
    """Cells of the neighbourhoods of a sample, largest first, into cells; -> how many of its neighbours are alike.

    luma, other: planes decoded before it, for chroma: the four luma samples at its place, the first chroma plane."""
    left, up = _neighbour(image, i, j - 1), _neighbour(image, i - 1, j)
    up_left, up_right = _neighbour(image, i - 1, j - 1), _neighbour(image, i - 1, j + 1)
    guess = np.int64(image[i, j])
    key = _mixed(_mixed(np.int64(plane), left), up)
    if plane == 0:
        key = _mixed(_mixed(key, up_left), up_right)
        cells[2] = key & (CELLS - 1)
        key = _mixed(_mixed(_mixed(key, _neighbour(image, i, j - 2)), _neighbour(image, i - 2, j)), guess)
        cells[1] = key & (CELLS - 1)
        key = _mixed(_mixed(key, _neighbour(image, i - 2, j + 1)), _neighbour(image, i - 2, j - 1))
        key = _mixed(_mixed(key, _neighbour(image, i, j - 3)), _neighbour(image, i - 1, j - 2))
        cells[0] = _mixed(key, _neighbour(image, i - 1, j + 2)) & (CELLS - 1)
    else:
        a, b = np.int64(luma[2 * i, 2 * j]), np.int64(luma[2 * i, 2 * j + 1])
        c, d = np.int64(luma[2 * i + 1, 2 * j]), np.int64(luma[2 * i + 1, 2 * j + 1])
        key = _mixed(key, a + b + c + d)
        if plane == 2:
            key = _mixed(key, np.int64(other[i, j]))
        cells[2] = key & (CELLS - 1)
        key = _mixed(_mixed(_mixed(_mixed(_mixed(key, a), b), c), d), guess)
        cells[1] = key & (CELLS - 1)
        key = _mixed(_mixed(key, _neighbour(luma, 2 * i, 2 * j - 1)), _neighbour(luma, 2 * i, 2 * j + 2))
        cells[0] = _mixed(_mixed(key, up_left), up_right) & (CELLS - 1)
    return np.int64(left == up) + np.int64(up == up_left) + np.int64(up == up_right)


@njit(cache=True, nogil=True)
def _guesses(image, i, j, cells, alike, values, right, found, contexts):
    """Guesses of a sample and the contexts of their hits, doubles taken out; -> how many.

    values uint8, right uint8 [ORDERS, CELLS]: what each cell guesses, and how often it was right (0: not met yet)."""
    count = 0
    for g in range(GUESSES):
        confidence = np.int64(0)
        if g < ORDERS:
            confidence = np.int64(right[g, cells[g]])
            if confidence == 0:
                continue
            guess = np.int64(values[g, cells[g]])
        elif g == ORDERS:
            guess = np.int64(image[i, j])
        else:
            guess = _neighbour(image, i, j - 1)
        double = False
        for k in range(count):
            double |= found[k] == guess
        if double:
            continue
        found[count] = guess
        contexts[count] = (g * (CONFIDENT + 1) + confidence) * _ALIKE + alike
        count += 1
    return count


@njit(cache=True, nogil=True)
def _walk(direction, state, buffer, contexts, values, right, kinds, plane, image, luma, other, wanted, spent):
    """Code the samples of a plane, into image, which holds its prediction.

    kinds uint8 [rows, columns] of tiles; wanted: the plane to code, where it is not decoded; spent
    int64 [rows, columns]: MEASURE adds there what each tile cost."""
    size = TILE if plane == 0 else TILE // 2
    base = np.int64(0) if plane == 0 else np.int64(_HIT_CONTEXTS + 256)
    cells, found, hits = np.empty(ORDERS, np.int64), np.empty(GUESSES, np.int64), np.empty(GUESSES, np.int64)
    for row in range(kinds.shape[0]):
        for column in range(kinds.shape[1]):
            if kinds[row, column] != SAMPLES:
                continue
            before = state[0]
            for i in range(row * size, (row + 1) * size):
                for j in range(column * size, (column + 1) * size):
                    alike = _look_up(plane, image, luma, other, i, j, cells)
                    count = _guesses(image, i, j, cells, alike, values, right, found, hits)
                    sample = np.int64(wanted[i, j])
                    hit = np.int64(0)
                    for k in range(count):
                        hit = code_bit(direction, state, buffer, contexts, base + hits[k], np.int64(sample == found[k]))
                        if hit:
                            sample = found[k]
                            break
                    if not hit:
                        node = np.int64(1)
                        for k in range(7, -1, -1):
                            c = base + _HIT_CONTEXTS + node
                            node = 2 * node + code_bit(direction, state, buffer, contexts, c, (sample >> k) & 1)
                        sample = node - 256
                    for g in range(ORDERS):
                        if values[g, cells[g]] == sample and right[g, cells[g]] > 0:
                            right[g, cells[g]] = min(right[g, cells[g]] + 1, CONFIDENT)
                        elif right[g, cells[g]] > 1:
                            right[g, cells[g]] >>= 1
                        else:
                            values[g, cells[g]], right[g, cells[g]] = sample, 1
                    image[i, j] = sample
            if direction == MEASURE:
                spent[row, column] += state[0] - before


def _code(direction: int, state: NDArray[np.int64], buffer: NDArray[np.uint8], kinds: NDArray[np.uint8],
          image: Picture, wanted: Picture) -> NDArray[np.int64]:
    contexts, spent = start_contexts(), np.zeros(kinds.shape, np.int64)
    values, right = (np.zeros((ORDERS, CELLS), np.uint8) for _ in range(2))
    for plane in range(3):
        _walk(direction, state, buffer, contexts, values, right, kinds, plane, image[plane], image.y, image.u,
              wanted[plane], spent)
    return spent


def start_contexts() -> NDArray[np.int32]:
    """Contexts of a picture's first sample."""
    probabilities = []
    for misses in np.array(_MISSES):
        by_order = np.full((ORDERS, CONFIDENT + 1, _ALIKE), 0.5)
        by_order[:, 1:] = misses[:-2].reshape(ORDERS, CONFIDENT, _ALIKE)
        others = np.full((GUESSES - ORDERS, CONFIDENT + 1, _ALIKE), 0.5)
        others[:, 0] = misses[-2:]
        probabilities += [by_order.reshape(-1), others.reshape(-1), np.full(256, 0.5)]
    start = np.concatenate(probabilities)
    return fresh_contexts(start, np.where(start == 0.5, 0, _CONFIDENCE))


def encode_samples(coder: Encoder, kinds: NDArray[np.uint8], image: Picture, wanted: Picture) -> None:
    """Code the tiles of kind SAMPLES of `wanted`; image holds the prediction, and is given what the decoder will have.

    kinds uint8 [H/16, W/16]. Pictures are contiguous, with sides that are multiples of 16."""
    coder.reserve(int((kinds == SAMPLES).sum()) * TILE * TILE * 4)
    _code(ENCODE, coder.state, coder.buffer, kinds, image, wanted)


def decode_samples(coder: Decoder, kinds: NDArray[np.uint8], image: Picture) -> None:
    """Read what `encode_samples` wrote into image. Bad bytes give some picture: look at coder.overrun."""
    _code(DECODE, coder.state, coder.data, kinds, image, image)


def bits_of(kinds: NDArray[np.uint8], image: Picture, wanted: Picture) -> NDArray[np.float64]:
    """About what each tile of kind SAMPLES would cost, in bits [H/16, W/16]; image is overwritten."""
    spent = _code(MEASURE, np.zeros(3, np.int64), np.zeros(1, np.uint8), kinds, image, wanted)
    return spent / COST_UNIT


def warm() -> None:
    """Compile every kernel into numba's cache."""
    kinds = np.full((1, 1), SAMPLES, np.uint8)
    grey = Picture(*(np.zeros((n, n), np.uint8) for n in (16, 8, 8)))
    coder = Encoder()
    encode_samples(coder, kinds, grey, grey)
    decode_samples(Decoder(coder.finish()), kinds, grey)
