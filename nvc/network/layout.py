"""Between the symbols of a step and the networks' inputs, in one pass each: the decoder's elementwise work on a CPU.

Grids are [pictures, rows, columns, channels] in C order. Networks take and give bfloat16, which numpy does not have:
it is an int16 here, the upper half of a float32's pattern. `BITS[256 + n]` is the pattern of the integer n, -256 … 256.
Loops are over rows of a scratch float32, so that they become vectors; patterns of what is not negative are ordered as
the numbers are, and the sign is the highest bit.

Every kernel does what `Network` does in tensors; tests hold the two equal.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from nvc.network.bands import band, half

BITS = torch.arange(-256, 257).to(torch.bfloat16).view(torch.int16).numpy().copy()
_ZERO = 256
_SIGN = -0x8000             # the pattern of -0.0
_FULL = 0x437F0000          # the pattern of float32 255.0


def as_tensor(grid: np.ndarray) -> Tensor:
    """A grid of patterns or of float32 as [B, C, H, W] in channels-last order, sharing memory."""
    tensor = torch.from_numpy(grid)
    if grid.dtype == np.int16:
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2)


def as_grid(tensor: Tensor) -> np.ndarray:
    """A tensor [B, C, H, W] as a grid, bfloat16 as patterns; shares memory where it is in channels-last order."""
    grid = tensor.permute(0, 2, 3, 1).contiguous()
    return (grid.view(torch.int16) if grid.dtype == torch.bfloat16 else grid).numpy()


def side_grid(planes: Tensor) -> np.ndarray:
    """Patterns [B, 1, 1, 3] of side planes [B, 3, 1, 1]."""
    return BITS[_ZERO + planes.permute(0, 2, 3, 1).to(torch.int64).cpu().numpy()]


def magnitudes(log: np.ndarray) -> np.ndarray:
    """Patterns of a log table uint8 [2048]."""
    return BITS[_ZERO + log.astype(np.int64)]


@njit(cache=True, nogil=True)
def _floats(patterns, scratch):
    """Patterns int16 [n] as float32 [n], in scratch int32 [n]."""
    for k in range(scratch.shape[0]):
        scratch[k] = np.int32(patterns[k]) << np.int32(16)
    return scratch.view(np.float32)


@njit(cache=True, nogil=True)
def _signed(magnitude, v):
    """The pattern of a magnitude with the sign of the int32 v."""
    return np.int16(magnitude | ((v >> 31) & _SIGN))


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
    """Input of the prediction context that the prediction (k = 0) or the difference (k = 1) makes, in out patterns
    [B, H, W, 227]: log magnitudes of its spectra, patterns [B, H, W, 96], and after those of both the log magnitudes of
    group 0's bands, each apart.

    inverse float32 [B], 8/Δ; table: `magnitudes`."""
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
    """Activations of the context float32 [B, H, W, 96] at one colour's positions: patterns [B, H, W/2 or W, 96]."""
    rows, whole = context.shape[1], context.view(np.int32)
    for b in range(context.shape[0]):
        for k in range(rows):
            i = row(k, rows, parity)
            for j in range(out.shape[2]):
                source, target = whole[b, i, column(i, j, parity)], out[b, k, j]
                for c in range(target.shape[0]):
                    target[c] = np.int16(min(max(source[c], 0), _FULL) >> 16)


@njit(cache=True, nogil=True)
def activate(sums):
    """Round and clip patterns [B, H, W, C] of product sums to activations 0 … 255, in place."""
    flat = sums.reshape(-1, sums.shape[3])
    scratch = np.empty(flat.shape[1], np.int32)
    for k in range(flat.shape[0]):
        floats = _floats(flat[k], scratch)
        for c in range(flat.shape[1]):
            floats[c] = np.rint(min(max(floats[c], np.float32(0)), np.float32(255)))
        for c in range(flat.shape[1]):
            flat[k, c] = np.int16(scratch[c] >> 16)


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
    seen, patterns [B, H, W, 199], from channel `at` on."""
    top = table.shape[0] - 1
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for j in range(v8.shape[2] if parity == 2 else v8.shape[2] // 2):
                x = column(i, j, parity)
                values, target = v8[b, i, x, first:first + n], spectral_features[b, i, x, at:at + 2 * n]
                for c in range(n):
                    size = table[min(abs(values[c]), top)]
                    target[c] = _signed(size, values[c])
                    target[n + c] = size


@njit(cache=True, nogil=True)
def fresh(spectral_features, parity, at, out):
    """What a step has added to the features: out, patterns [B, H, W, 2n], from channel `at` on of seen at one colour's
    positions, zeros elsewhere."""
    n = out.shape[3]
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for x in range(out.shape[2]):
                if (i + x) & 1 == parity:
                    out[b, i, x] = spectral_features[b, i, x, at:at + n]
                else:
                    out[b, i, x] = 0


@njit(cache=True, nogil=True)
def _first_features(v, table, bits, out):
    """The three features of a latent of group 0: signed log and log, four channels apart, and the value in steps."""
    size = table[min(abs(v), table.shape[0] - 1)]
    out[0], out[4] = _signed(size, v), size
    out[8] = bits[_ZERO + int(min(max(np.rint(v * 0.125), -127.0), 127.0))]


@njit(cache=True, nogil=True)
def bands(v8, table, bits, fresh):
    """Features of group 0's bands of the first colour, each apart: fresh, patterns [B, H, W, 24], zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(v8.shape[2]):
                fresh[b, i, x] = 0
                if (i + x) & 1 == 0:
                    for c in range(4):
                        _first_features(v8[b, i, x, c], table, bits, fresh[b, i, x, 12 * (i & 1) + c:])


@njit(cache=True, nogil=True)
def joined(v8, table, bits, spectral_features, fresh):
    """Features of what group 0's bands stand for: seen, patterns [B, H, W, 199], first 12 channels; fresh, patterns
    [B, H, W, 24], the colours apart, zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(v8.shape[2]):
                known, colour = spectral_features[b, i, x], (i + x) & 1
                for c in range(4):
                    _first_features(half(band(v8[b], i, x, c)), table, bits, known[c:])
                fresh[b, i, x, 12 * colour:12 * colour + 12] = known[:12]
                fresh[b, i, x, 12 - 12 * colour:24 - 12 * colour] = 0


@njit(cache=True, nogil=True)
def filter_input(base, p, d, trunk, bits, out):
    """Input of the in-loop filter at a quarter of the size: 2×2 phases of base - 128, base - p, d, then the trunk.

    base, p uint8 [B, 6, h, w]; d int16 [B, 6, h, w]; trunk int16 patterns [B, H, W, 128]; out int16 [B, 2H, 2W, 104].
    """
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for c in range(6):
                    for dy in range(2):
                        for dx in range(2):
                            y, x, k = 2 * i + dy, 2 * j + dx, 4 * c + 2 * dy + dx
                            value = np.int64(base[b, c, y, x])
                            out[b, i, j, k] = bits[_ZERO + value - 128]
                            out[b, i, j, 24 + k] = bits[_ZERO + value - np.int64(p[b, c, y, x])]
                            out[b, i, j, 48 + k] = bits[_ZERO + np.int64(d[b, c, y, x])]
                phase = 2 * (i & 1) + (j & 1)
                for c in range(32):
                    out[b, i, j, 72 + c] = trunk[b, i >> 1, j >> 1, 4 * c + phase]


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
    s = lambda *shape: np.zeros(shape, np.int16)        # noqa: E731
    n = lambda *shape: np.zeros(shape, np.int32)        # noqa: E731
    u = lambda *shape: np.zeros(shape, np.uint8)        # noqa: E731
    table = s(2048)
    spectral_features(s(1, 2, 2, 96), f(1), table, 0, s(1, 2, 2, 227))
    gather(f(1, 2, 2, 96), 0, s(1, 2, 1, 96))
    activate(s(1, 2, 2, 96))
    add(s(1, 2, 2, 96), f(1, 2, 2, 96))
    parameters(s(1, 2, 1, 8), n(1, 2, 1, 4), n(1, 2, 1, 4))
    place(n(1, 2, 1, 4), n(1, 2, 1, 4), 0, 0, n(1, 2, 2, 96))
    features(n(1, 2, 2, 96), 0, 4, 12, 12, table, s(1, 2, 2, 199))
    fresh(s(1, 2, 2, 199), 0, 12, s(1, 2, 2, 24))
    bands(n(1, 2, 2, 96), table, BITS, s(1, 2, 2, 24))
    joined(n(1, 2, 2, 96), table, BITS, s(1, 2, 2, 199), s(1, 2, 2, 24))
    filter_input(u(1, 6, 8, 8), u(1, 6, 8, 8), s(1, 6, 8, 8), s(1, 2, 2, 128), BITS, s(1, 4, 4, 104))
    shuffle(s(1, 4, 4, 24), f(1, 6, 8, 8))
