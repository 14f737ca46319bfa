"""The encoder's choice of symbols: D + λR with the decoder's own tables. No decoder runs this."""

from __future__ import annotations

import numpy as np
from numba import njit

from nvc.network.layout import column, row
from nvc.network.linear import LOCAL_BITS


@njit(cache=True, nogil=True)
def choose(y, local, first, parity, mean, index, lambda_scale, importance, bits, radius, symbols):
    """Symbols of one step of one picture; -> estimated bits.

    Each is the nearest integer to e = y / local - mean/8, one toward zero, or zero, with the least
    importance · (e - s)² + lambda_scale · bits.
    y float32 [H, W, 96], latents in steps of the picture; local int32 [H, W], a position's own step in 2^-10 of that;
    first: the step's first channel; parity: checkerboard colour, 2 for all; mean, index int32 [R, C, n] (index 0:
    nothing is coded, the symbol is 0); lambda_scale float32 [96], λ/Δ² by channel; importance float32 [H, W], of a
    position's errors; bits float32 [T, L], cost of each slot; radius int32 [T]; symbols int32 [R, C, n], written.
    """
    total = 0.0
    rows, columns, n = symbols.shape
    for k in range(rows):
        i = row(k, rows, parity)
        for j in range(columns):
            x = column(i, j, parity)
            own = np.float32(1 << LOCAL_BITS) / np.float32(local[i, x])
            rate = np.float32(1) / importance[i, x]
            for c in range(n):
                t = index[k, j, c]
                symbols[k, j, c] = 0
                if t == 0:
                    continue
                e = y[i, x, first + c] * own - mean[k, j, c] * np.float32(0.125)
                a = abs(e)
                costs = bits[t]
                reach = radius[t]
                price = lambda_scale[first + c] * rate
                zero_bits = costs[reach]
                if a < 0.5:
                    total += zero_bits
                    continue
                near = min(int(a + 0.5), 32000)
                best, best_cost, best_bits = 0, a * a + price * zero_bits, zero_bits
                for s in range(max(near - 1, 1), near + 1):
                    if s <= reach:
                        b = costs[reach + s]
                    else:
                        b = costs[2 * reach + 1] + np.float32(2.0) + np.float32(2.0) * np.log2(np.float32(s - reach))
                    cost = (a - s) * (a - s) + price * b
                    if cost < best_cost:
                        best, best_cost, best_bits = s, cost, b
                total += best_bits
                symbols[k, j, c] = best if e > 0 else -best
    return total


def warm() -> None:
    """Compile the kernel into numba's cache."""
    n = np.ones((2, 1, 4), np.int32)
    choose(np.ones((2, 2, 96), np.float32), np.ones((2, 2), np.int32), 0, 0, n, n, np.full(96, 0.1, np.float32),
           np.ones((2, 2), np.float32), np.ones((2, 4), np.float32), np.ones(2, np.int32), n.copy())
