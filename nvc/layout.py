"""Between the symbols of a step and the networks' inputs, in one pass each: the decoder's elementwise work on a CPU.

Grids are [pictures, rows, columns, channels] in C order. Networks take bfloat16, which numpy does not have, so their
inputs are written as 16-bit patterns: `BITS[256 + n]` is the pattern of the integer n, -256 … 256.

Every kernel does what `Network` does in tensors; tests hold the two equal.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from nvc.bands import band, half

BITS = torch.arange(-256, 257).to(torch.bfloat16).view(torch.int16).numpy().copy()
_ZERO = 256


def as_tensor(grid: np.ndarray) -> Tensor:
    """A grid as [B, C, H, W] in channels-last order, sharing memory; int16 patterns become bfloat16."""
    tensor = torch.from_numpy(grid)
    if grid.dtype == np.int16:
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2)


def as_grid(tensor: Tensor) -> np.ndarray:
    """A channels-last float tensor [B, C, H, W] as a float32 grid, sharing memory where it can."""
    return tensor.permute(0, 2, 3, 1).float().contiguous().numpy()


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
def seen(spectra, inverse, log, side, bits, out):
    """Input of the prediction context: log magnitudes of spectra float32 [2, B, H, W, 96], of their bands in group 0,
    each apart, and the planes.

    inverse float32 [B], 8/Δ; log uint8 [2048]; side int32 [B, 3]; out int16 [B, H, W, 192 + 32 + 3]."""
    top, (_, pictures, rows, columns, channels) = log.shape[0] - 1, spectra.shape
    first = np.empty((rows, columns, 4), np.int32)
    for b in range(pictures):
        for k in range(2):
            for i in range(rows):
                for j in range(columns):
                    for c in range(channels):
                        v = int(np.rint(spectra[k, b, i, j, c] * inverse[b]))
                        out[b, i, j, channels * k + c] = bits[_ZERO + log[min(abs(v), top)]]
                        if c < 4:
                            first[i, j, c] = v
            for i in range(rows):
                for j in range(columns):
                    out[b, i, j, 192 + 16 * k:208 + 16 * k] = bits[_ZERO]
                    place = 192 + 16 * k + 8 * (i & 1) + 4 * (j & 1)
                    for c in range(4):
                        out[b, i, j, place + c] = bits[_ZERO + log[min(abs(half(band(first, i, j, c))), top)]]
        for i in range(rows):
            for j in range(columns):
                for c in range(3):
                    out[b, i, j, 224 + c] = bits[_ZERO + side[b, c]]


@njit(cache=True, nogil=True)
def gather(context, parity, bits, out):
    """Activations of the context float32 [B, H, W, 96] at one colour's positions: int16 [B, H, W/2 or W, 96]."""
    rows = context.shape[1]
    for b in range(context.shape[0]):
        for k in range(rows):
            i = row(k, rows, parity)
            for j in range(out.shape[2]):
                x = column(i, j, parity)
                for c in range(context.shape[3]):
                    out[b, k, j, c] = bits[_ZERO + int(min(max(context[b, i, x, c], 0.0), 255.0))]


@njit(cache=True, nogil=True)
def parameters(raw, mean, index):
    """Split a head's output float32 [B, R, C, 2n or 4n] into means (eighths of a step) and scale indices, int32
    [.., n]. Of 4n the first half is for the first half of the rows: one band each."""
    n = mean.shape[3]
    for b in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            k = 2 * n if 2 * i >= raw.shape[1] and raw.shape[3] == 4 * n else 0
            for j in range(raw.shape[2]):
                for c in range(n):
                    mean[b, i, j, c] = int(min(max(np.rint(raw[b, i, j, k + c] * np.float32(0.5)), -1023.0), 1023.0))
                    scale = np.rint(raw[b, i, j, k + n + c] * np.float32(0.25) + np.float32(20.0))
                    index[b, i, j, c] = int(min(max(scale, 0.0), 63.0))


@njit(cache=True, nogil=True)
def place(symbols, mean, parity, first, v8):
    """Put a step's symbols int32 [B, R, C, n] where they belong: v8 int32 [B, H, W, 96], 8·symbol + mean from channel
    `first` on."""
    for b in range(symbols.shape[0]):
        for k in range(symbols.shape[1]):
            i = row(k, v8.shape[1], parity)
            for j in range(symbols.shape[2]):
                x = column(i, j, parity)
                for c in range(symbols.shape[3]):
                    v8[b, i, x, first + c] = 8 * symbols[b, k, j, c] + mean[b, k, j, c]


@njit(cache=True, nogil=True)
def features(v8, parity, first, n, at, log, bits, seen, fresh):
    """Features of channels first … first + n of v8 int32 [B, H, W, 96] at one colour's positions, signed log and log:
    in seen int16 [B, H, W, 199] from channel `at` on, and in fresh int16 [B, H, W, 2n], zeros elsewhere."""
    rows, top = v8.shape[1], log.shape[0] - 1
    for b in range(v8.shape[0]):
        for i in range(rows):
            for j in range(v8.shape[2] if parity == 2 else v8.shape[2] // 2):
                x = column(i, j, parity)
                for c in range(n):
                    v = v8[b, i, x, first + c]
                    size = np.int64(log[min(abs(v), top)])
                    signed = bits[_ZERO + (size if v >= 0 else -size)]
                    seen[b, i, x, at + c] = signed
                    seen[b, i, x, at + n + c] = bits[_ZERO + size]
                    fresh[b, i, x, c] = signed
                    fresh[b, i, x, n + c] = bits[_ZERO + size]


@njit(cache=True, nogil=True)
def _first_features(v, log, bits, out):
    """The three features of a latent of group 0: signed log and log, four channels apart, and the value in steps."""
    size = np.int64(log[min(abs(v), log.shape[0] - 1)])
    out[0] = bits[_ZERO + (size if v >= 0 else -size)]
    out[4] = bits[_ZERO + size]
    out[8] = bits[_ZERO + int(min(max(np.rint(v * 0.125), -127.0), 127.0))]


@njit(cache=True, nogil=True)
def bands(v8, log, bits, fresh):
    """Features of group 0's bands of the first colour, each apart: fresh int16 [B, H, W, 24], zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(i & 1, v8.shape[2], 2):
                for c in range(4):
                    _first_features(v8[b, i, x, c], log, bits, fresh[b, i, x, 12 * (i & 1) + c:])


@njit(cache=True, nogil=True)
def joined(v8, log, bits, seen, fresh):
    """Features of what group 0's bands stand for: seen int16 [B, H, W, 199], first 12 channels; fresh int16
    [B, H, W, 24], the colours apart, zeros elsewhere."""
    for b in range(v8.shape[0]):
        for i in range(v8.shape[1]):
            for x in range(v8.shape[2]):
                for c in range(4):
                    value = half(band(v8[b], i, x, c))
                    _first_features(value, log, bits, seen[b, i, x, c:])
                    _first_features(value, log, bits, fresh[b, i, x, 12 * ((i + x) & 1) + c:])


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
def shuffle(raw, out):
    """Network output float32 [B, 2H, 2W, 24] → planes float32 [B, 6, 4H, 4W], rounded to integers."""
    for b in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            for j in range(raw.shape[2]):
                for c in range(6):
                    for k in range(4):
                        out[b, c, 2 * i + (k >> 1), 2 * j + (k & 1)] = np.rint(raw[b, i, j, 4 * c + k])


def warm() -> None:
    """Compile every kernel into numba's cache."""
    f = lambda *shape: np.zeros(shape, np.float32)      # noqa: E731
    s = lambda *shape: np.zeros(shape, np.int16)        # noqa: E731
    n = lambda *shape: np.zeros(shape, np.int32)        # noqa: E731
    u = lambda *shape: np.zeros(shape, np.uint8)        # noqa: E731
    log = u(2048)
    seen(f(2, 1, 2, 2, 96), f(1), log, n(1, 3), BITS, s(1, 2, 2, 227))
    gather(f(1, 2, 2, 96), 0, BITS, s(1, 2, 1, 96))
    parameters(f(1, 2, 1, 8), n(1, 2, 1, 4), n(1, 2, 1, 4))
    place(n(1, 2, 1, 4), n(1, 2, 1, 4), 0, 0, n(1, 2, 2, 96))
    features(n(1, 2, 2, 96), 0, 4, 12, 12, log, BITS, s(1, 2, 2, 199), s(1, 2, 2, 24))
    bands(n(1, 2, 2, 96), log, BITS, s(1, 2, 2, 24))
    joined(n(1, 2, 2, 96), log, BITS, s(1, 2, 2, 199), s(1, 2, 2, 24))
    filter_input(u(1, 6, 8, 8), u(1, 6, 8, 8), s(1, 6, 8, 8), s(1, 2, 2, 128), BITS, s(1, 4, 4, 104))
    shuffle(f(1, 4, 4, 24), f(1, 6, 8, 8))
