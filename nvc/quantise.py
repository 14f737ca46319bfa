"""The encoder's choice of symbols: D + λR with the decoder's own tables. No decoder runs this."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def choose(e, indexes, thrift, bits, radius, symbols):
    """symbols[i] = nearest integer to e[i], one toward zero, or zero: least (e - s)² + thrift · bits of s.

    e float32 [N], steps; indexes int32 [N], 0: nothing is coded, the symbol is 0; thrift float32, λ/Δ²;
    bits float32 [T, L], cost of each slot; radius int32 [T]; symbols int32 [N], written. -> estimated bits.
    """
    total = 0.0
    for i in range(e.shape[0]):
        t = indexes[i]
        symbols[i] = 0
        if t == 0:
            continue
        x = e[i]
        a = abs(x)
        row = bits[t]
        reach = radius[t]
        zero_bits = row[reach]
        if a < 0.5:
            total += zero_bits
            continue
        k = int(a + 0.5)
        best, best_cost, best_bits = 0, a * a + thrift * zero_bits, zero_bits
        for s in range(max(k - 1, 1), k + 1):
            if s <= reach:
                b = row[reach + s]
            else:
                b = row[2 * reach + 1] + 2.0 + 2.0 * np.log2(np.float32(s - reach))
            c = (a - s) * (a - s) + thrift * b
            if c < best_cost:
                best, best_cost, best_bits = s, c, b
        total += best_bits
        symbols[i] = best if x > 0 else -best
    return total


def warm() -> None:
    """Compile the kernel into numba's cache."""
    one: NDArray[np.float32] = np.ones(1, np.float32)
    choose(one, np.ones(1, np.int32), np.float32(0.1), np.ones((2, 4), np.float32), np.ones(2, np.int32), np.zeros(1, np.int32))
