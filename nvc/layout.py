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
def seen(p, d, inverse, log, side, bits, out):
    """Input of the prediction context: log magnitudes of the spectra p, d float32 [B, H, W, 96], then the planes.

    inverse float32 [B], 8/Δ; log uint8 [2048]; side int32 [B, 3]; out int16 [B, H, W, 195]."""
    top = log.shape[0] - 1
    for b in range(p.shape[0]):
        for i in range(p.shape[1]):
            for j in range(p.shape[2]):
                for c in range(96):
                    out[b, i, j, c] = bits[_ZERO + log[min(int(abs(np.rint(p[b, i, j, c] * inverse[b]))), top)]]
                    out[b, i, j, 96 + c] = bits[_ZERO + log[min(int(abs(np.rint(d[b, i, j, c] * inverse[b]))), top)]]
                for c in range(3):
                    out[b, i, j, 192 + c] = bits[_ZERO + side[b, c]]


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
    """Split a head's output float32 [B, R, C, 2n] into means (eighths of a step) and scale indices, int32 [.., n]."""
    n = mean.shape[3]
    for b in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            for j in range(raw.shape[2]):
                for c in range(n):
                    mean[b, i, j, c] = int(min(max(np.rint(raw[b, i, j, c] * np.float32(0.5)), -1023.0), 1023.0))
                    scale = np.rint(raw[b, i, j, n + c] * np.float32(0.25) + np.float32(20.0))
                    index[b, i, j, c] = int(min(max(scale, 0.0), 63.0))


@njit(cache=True, nogil=True)
def place(symbols, mean, parity, first, feature, linear, log, bits, v8, features, step_features):
    """Put a step's symbols int32 [B, R, C, n] where they belong.

    v8 int32 [B, H, W, 96]: 8·symbol + mean from channel `first` on; features int16 [B, H, W, 199] from channel
    `feature` on and step_features int16 [B, H, W, 2n or 3n] (zeros elsewhere): signed log, log, and, where `linear`,
    the value in steps."""
    rows, n, top = v8.shape[1], symbols.shape[3], log.shape[0] - 1
    for b in range(symbols.shape[0]):
        for k in range(rows):
            i = row(k, rows, parity)
            for j in range(symbols.shape[2]):
                x = column(i, j, parity)
                for c in range(n):
                    v = 8 * symbols[b, k, j, c] + mean[b, k, j, c]
                    size = np.int64(log[min(abs(v), top)])
                    signed = bits[_ZERO + (size if v >= 0 else -size)]
                    v8[b, i, x, first + c] = v
                    features[b, i, x, feature + c] = signed
                    features[b, i, x, feature + n + c] = bits[_ZERO + size]
                    step_features[b, i, x, c] = signed
                    step_features[b, i, x, n + c] = bits[_ZERO + size]
                    if linear:
                        value = int(min(max(np.rint(v * 0.125), -127.0), 127.0))
                        features[b, i, x, feature + 2 * n + c] = bits[_ZERO + value]
                        step_features[b, i, x, 2 * n + c] = bits[_ZERO + value]


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
    seen(f(1, 2, 2, 96), f(1, 2, 2, 96), f(1), log, n(1, 3), BITS, s(1, 2, 2, 195))
    gather(f(1, 2, 2, 96), 0, BITS, s(1, 2, 1, 96))
    parameters(f(1, 2, 1, 8), n(1, 2, 1, 4), n(1, 2, 1, 4))
    place(n(1, 2, 1, 4), n(1, 2, 1, 4), 0, 0, 0, True, log, BITS, n(1, 2, 2, 96), s(1, 2, 2, 199), s(1, 2, 2, 12))
    filter_input(u(1, 6, 8, 8), u(1, 6, 8, 8), s(1, 6, 8, 8), s(1, 2, 2, 128), BITS, s(1, 4, 4, 104))
    shuffle(f(1, 4, 4, 24), f(1, 6, 8, 8))
