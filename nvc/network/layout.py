"""Between the symbols of a step and the networks' inputs, in one pass each: the decoder's elementwise work on a CPU.

Grids are [pictures, rows, columns, channels] in C order. Networks take bytes (nvc/network/byte_layers.py), features
with a sign around SIGNED, and give bfloat16, which numpy does not have: it is an int16 here, the upper half of a
float32's pattern. Loops are over rows of a scratch float32, so that they become vectors.

Every kernel does what `Network` does in tensors; tests hold the two equal.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from nvc.network.bands import band, half
from nvc.network.byte_layers import SIGNED

FILTER_CHANNELS, FILTER_SIGNED = 104, 72      # of the in-loop filter's input; the first ones have a sign


def as_grid(tensor: Tensor) -> np.ndarray:
    """A tensor [B, C, H, W] as a grid, bfloat16 as patterns; shares memory where it is in channels-last order."""
    grid = tensor.permute(0, 2, 3, 1).contiguous()
    return (grid.view(torch.int16) if grid.dtype == torch.bfloat16 else grid).numpy()


def side_grid(planes: Tensor) -> np.ndarray:
    """Bytes [B, 1, 1, 3] of side planes [B, 3, 1, 1], 0 … 127."""
    return planes.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


@njit(cache=True, nogil=True)
def _floats(patterns, scratch):
    """Patterns int16 [n] as float32 [n], in scratch int32 [n]."""
    for k in range(scratch.shape[0]):
        scratch[k] = np.int32(patterns[k]) << np.int32(16)
    return scratch.view(np.float32)


@njit(cache=True, nogil=True)
def _signed(magnitude, v):
    """The byte of a magnitude 0 … 127 with the sign of the int32 v."""
    sign = v >> np.int32(31)
    return np.uint8(((np.int32(magnitude) ^ sign) - sign) + np.int32(SIGNED))


@njit(cache=True, nogil=True)
def column(i, j, parity):
    """Column of the j-th position of a checkerboard colour in row i; parity 2: every position."""
    return j if parity == 2 else 2 * j + ((i + parity) & 1)


@njit(cache=True, nogil=True)
def row(k, rows, parity):
    """Row of the k-th row of a gathered grid: even rows first, then odd ones."""
    if parity == 2:
        return k
    half = rows // 2
    return 2 * k if k < half else 2 * (k - half) + 1


@njit(cache=True, nogil=True)
def spectral_features(spectra, inverse, table, k, out):
    """Input of the prediction context that the prediction (k = 0) or the difference (k = 1) makes, in out uint8
    [B, H, W, 227]: log magnitudes of its spectra, patterns [B, H, W, 96], and after those of both the log magnitudes of
    group 0's bands, each apart.

    inverse float32 [B], 8/Δ; table uint8 [2048]: round(16·log(1 + n/8)), here and below."""
    top, (pictures, rows, columns, channels) = table.shape[0] - 1, spectra.shape
    first, scratch = np.empty((rows, columns, 4), np.int32), np.empty(channels, np.int32)
    values = np.empty(channels, np.int32)
    for b in range(pictures):
        for i in range(rows):
            for j in range(columns):
                floats, target = _floats(spectra[b, i, j], scratch), out[b, i, j, channels * k:channels * (k + 1)]
                for c in range(channels):
                    values[c] = np.int32(np.rint(floats[c] * inverse[b]))
                for c in range(channels):
                    target[c] = table[min(abs(values[c]), top)]
                for c in range(4):
                    first[i, j, c] = values[c]
        for i in range(rows):
            for j in range(columns):
                target = out[b, i, j, 2 * channels + 16 * k:2 * channels + 16 * (k + 1)]
                target[:] = 0
                for c in range(4):
                    target[8 * (i & 1) + 4 * (j & 1) + c] = table[min(abs(half(band(first, i, j, c))), top)]


@njit(cache=True, nogil=True)
def gather(context, parity, out):
    """Activations of the context float32 [B, H, W, 96] at one colour's positions: uint8 [B, H, W/2 or W, 96]."""
    rows = context.shape[1]
    for b in range(context.shape[0]):
        for k in range(rows):
            i = row(k, rows, parity)
            for j in range(out.shape[2]):
                source, target = context[b, i, column(i, j, parity)], out[b, k, j]
                for c in range(target.shape[0]):
                    target[c] = np.uint8(np.int32(min(max(source[c], np.float32(0)), np.float32(255))))


@njit(cache=True, nogil=True)
def activate(sums, out):
    """Product sums, patterns [B, H, W, C], rounded and clipped to activations out uint8 [B, H, W, C]."""
    flat, target = sums.reshape(-1, sums.shape[3]), out.reshape(-1, sums.shape[3])
    scratch = np.empty(flat.shape[1], np.int32)
    for k in range(flat.shape[0]):
        floats = _floats(flat[k], scratch)
        for c in range(flat.shape[1]):
            target[k, c] = np.uint8(np.int32(np.rint(min(max(floats[c], np.float32(0)), np.float32(255)))))


@njit(cache=True, nogil=True)
def add(sums, context):
    """Add patterns [B, H, W, C] of product sums, rounded, to the context float32."""
    rows, target = sums.reshape(-1, sums.shape[3]), context.reshape(-1, sums.shape[3])
    scratch = np.empty(rows.shape[1], np.int32)
    for k in range(rows.shape[0]):
        floats = _floats(rows[k], scratch)
        for c in range(rows.shape[1]):
            target[k, c] += np.rint(floats[c])


@njit(cache=True, nogil=True)
def parameters(sums, mean, index):
    """Split a head's output, patterns [B, R, C, 2n or 4n], into means (eighths of a step) and scale indices, int32
    [.., n]. Of 4n the first half is for the first half of the rows: one band each."""
    n, outputs = mean.shape[3], sums.shape[3]
    scratch = np.empty(outputs, np.int32)
    for b in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            k = 2 * n if 2 * i >= sums.shape[1] and outputs == 4 * n else 0
            for j in range(sums.shape[2]):
                floats, means, indices = _floats(sums[b, i, j], scratch), mean[b, i, j], index[b, i, j]
                for c in range(n):
                    value = np.rint(floats[k + c] * np.float32(0.5))
                    means[c] = np.int32(min(max(value, np.float32(-1023)), np.float32(1023)))
                for c in range(n):
                    scale = np.rint(floats[k + n + c] * np.float32(0.25) + np.float32(20))
                    indices[c] = np.int32(min(max(scale, np.float32(0)), np.float32(63)))


@njit(cache=True, nogil=True)
def place(symbols, mean, parity, first, v8):
    """Put a step's symbols int32 [B, R, C, n] where they belong: v8 int32 [B, H, W, 96], 8·symbol + mean from channel
    `first` on."""
    n = symbols.shape[3]
    for b in range(symbols.shape[0]):
        for k in range(symbols.shape[1]):
            i = row(k, v8.shape[1], parity)
            for j in range(symbols.shape[2]):
                target = v8[b, i, column(i, j, parity), first:first + n]
                s, m = symbols[b, k, j], mean[b, k, j]
                for c in range(n):
                    target[c] = 8 * s[c] + m[c]


@njit(cache=True, nogil=True)
def features(v8, parity, first, n, at, table, spectral_features):
    """Features of channels first … first + n of v8 int32 [B, H, W, 96] at one colour's positions, signed log and log:
    spectral_features uint8 [B, H, W, 199], from channel `at` on."""
    top = table.shape[0] - 1
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for j in range(v8.shape[2] if parity == 2 else v8.shape[2] // 2):
                x = column(i, j, parity)
                values, target = v8[b, i, x, first:first + n], spectral_features[b, i, x, at:at + 2 * n]
                for c in range(n):
                    size = table[min(abs(values[c]), top)]
                    target[c] = _signed(size, values[c])
                    target[n + c] = size + np.uint8(SIGNED)


@njit(cache=True, nogil=True)
def fresh(spectral_features, parity, at, out):
    """What a step has added to the features: out uint8 [B, H, W, 2n], from channel `at` on of them at one colour's
    positions, zeros elsewhere."""
    n = out.shape[3]
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for x in range(out.shape[2]):
                if (i + x) & 1 == parity:
                    out[b, i, x] = spectral_features[b, i, x, at:at + n]
                else:
                    out[b, i, x] = SIGNED


@njit(cache=True, nogil=True)
def _first_features(v, table, out):
    """The three features of a latent of group 0: signed log and log, four channels apart, and the value in steps."""
    size = table[min(abs(v), table.shape[0] - 1)]
    out[0], out[4] = _signed(size, np.int32(v)), size + np.uint8(SIGNED)
    out[8] = np.uint8(SIGNED + np.int64(min(max(np.rint(v * 0.125), -127.0), 127.0)))


@njit(cache=True, nogil=True)
def bands(v8, table, fresh):
    """Features of group 0's bands of the first colour, each apart: fresh uint8 [B, H, W, 24], zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(v8.shape[2]):
                fresh[b, i, x] = SIGNED
                if (i + x) & 1 == 0:
                    for c in range(4):
                        _first_features(v8[b, i, x, c], table, fresh[b, i, x, 12 * (i & 1) + c:])


@njit(cache=True, nogil=True)
def joined(v8, table, spectral_features, fresh):
    """Features of what group 0's bands stand for: the first 12 channels of spectral_features uint8 [B, H, W, 199]; and
    fresh uint8 [B, H, W, 24], the colours apart, zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(v8.shape[2]):
                known, colour = spectral_features[b, i, x], (i + x) & 1
                for c in range(4):
                    _first_features(half(band(v8[b], i, x, c)), table, known[c:])
                fresh[b, i, x, 12 * colour:12 * colour + 12] = known[:12]
                fresh[b, i, x, 12 - 12 * colour:24 - 12 * colour] = SIGNED


@njit(cache=True, nogil=True)
def _filter_position(base, p, d, trunk, b, i, j, values):
    """What the in-loop filter sees at position (i, j) of picture b: values int16 [104]."""
    for c in range(6):
        for dy in range(2):
            for dx in range(2):
                y, x, k = 2 * i + dy, 2 * j + dx, 4 * c + 2 * dy + dx
                value = np.int32(base[b, c, y, x])
                values[k] = value - 128
                values[24 + k] = value - np.int32(p[b, c, y, x])
                values[48 + k] = d[b, c, y, x]
    phase = 2 * (i & 1) + (j & 1)
    for c in range(32):
        values[72 + c] = trunk[b, i >> 1, j >> 1, 4 * c + phase]


@njit(cache=True, nogil=True)
def filter_input(base, p, d, trunk, out):
    """Input of the in-loop filter at a quarter of the size, int16 [B, 2H, 2W, 104]: 2×2 phases of base - 128, base - p,
    d, then the trunk.

    base, p uint8 [B, 6, h, w]; d int16 [B, 6, h, w]; trunk uint8 [B, H, W, 128].
    """
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                _filter_position(base, p, d, trunk, b, i, j, out[b, i, j])


@njit(cache=True, nogil=True)
def filter_bytes(base, p, d, trunk, out, far):
    """`filter_input` in bytes, those with a sign around SIGNED and clipped: out uint8 [B, 2H + 2, 2W + 2, 104] with a
    margin of zeros. far bool, same rows and columns: whether the filter sees there what was clipped."""
    rows, columns, values = out.shape[1] - 2, out.shape[2] - 2, np.empty(FILTER_CHANNELS, np.int16)
    far[:] = False
    for b in range(out.shape[0]):
        for i in range(-1, rows + 1):
            for j in range(-1, columns + 1):
                target = out[b, i + 1, j + 1]
                if i < 0 or j < 0 or i == rows or j == columns:
                    target[:FILTER_SIGNED], target[FILTER_SIGNED:] = SIGNED, 0
                    continue
                _filter_position(base, p, d, trunk, b, i, j, values)
                clipped = False
                for c in range(FILTER_SIGNED):
                    clipped |= values[c] < -128 or values[c] > 127
                    target[c] = min(max(values[c], -128), 127) + SIGNED
                for c in range(FILTER_SIGNED, FILTER_CHANNELS):
                    target[c] = values[c]
                if clipped:
                    far[b, i:i + 3, j:j + 3] = True


@njit(cache=True, nogil=True)
def filter_patches(base, p, d, trunk, places, out):
    """`filter_input` around places int64 [n, 3] (picture, row, column): out float32 [n, 3, 3, 104]."""
    rows, columns, values = 2 * trunk.shape[1], 2 * trunk.shape[2], np.empty(FILTER_CHANNELS, np.int16)
    for n in range(places.shape[0]):
        b, i, j = places[n]
        for y in range(3):
            for x in range(3):
                if 0 <= i + y - 1 < rows and 0 <= j + x - 1 < columns:
                    _filter_position(base, p, d, trunk, b, i + y - 1, j + x - 1, values)
                    for c in range(FILTER_CHANNELS):
                        out[n, y, x, c] = values[c]
                else:
                    out[n, y, x] = 0


@njit(cache=True, nogil=True)
def shuffle(sums, out):
    """Network output, patterns [B, 2H, 2W, 24] → planes float32 [B, 6, 4H, 4W], rounded to integers."""
    scratch = np.empty(24, np.int32)
    for b in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            for j in range(sums.shape[2]):
                floats = _floats(sums[b, i, j], scratch)
                for c in range(6):
                    for k in range(4):
                        out[b, c, 2 * i + (k >> 1), 2 * j + (k & 1)] = np.rint(floats[4 * c + k])


def warm() -> None:
    """Compile every kernel into numba's cache."""
    f = lambda *shape: np.zeros(shape, np.float32)      # noqa: E731
    s = lambda *shape: np.zeros(shape, np.int16)        # noqa: E731 — patterns
    n = lambda *shape: np.zeros(shape, np.int32)        # noqa: E731
    u = lambda *shape: np.zeros(shape, np.uint8)        # noqa: E731
    table = u(2048)
    spectral_features(s(1, 2, 2, 96), f(1), table, 0, u(1, 2, 2, 227))
    gather(f(1, 2, 2, 96), 0, u(1, 2, 1, 96))
    activate(s(1, 2, 2, 96), u(1, 2, 2, 96))
    add(s(1, 2, 2, 96), f(1, 2, 2, 96))
    parameters(s(1, 2, 1, 8), n(1, 2, 1, 4), n(1, 2, 1, 4))
    place(n(1, 2, 1, 4), n(1, 2, 1, 4), 0, 0, n(1, 2, 2, 96))
    features(n(1, 2, 2, 96), 0, 4, 12, 12, table, u(1, 2, 2, 199))
    fresh(u(1, 2, 2, 199), 0, 12, u(1, 2, 2, 24))
    bands(n(1, 2, 2, 96), table, u(1, 2, 2, 24))
    joined(n(1, 2, 2, 96), table, u(1, 2, 2, 199), u(1, 2, 2, 24))
    seen = (u(1, 6, 8, 8), u(1, 6, 8, 8), s(1, 6, 8, 8), u(1, 2, 2, 128))
    filter_input(*seen, s(1, 4, 4, FILTER_CHANNELS))
    filter_bytes(*seen, u(1, 6, 6, FILTER_CHANNELS), np.zeros((1, 6, 6), np.bool_))
    filter_patches(*seen, np.zeros((1, 3), np.int64), f(1, 3, 3, FILTER_CHANNELS))
    shuffle(s(1, 4, 4, 24), f(1, 6, 8, 8))
