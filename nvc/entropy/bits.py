"""One function for each kind of bit, in all directions: so that syntax is walked by one traversal.

ENCODE and DECODE go through the range coder, MEASURE adds up what it would cost, TALLY counts what each context sees.
"""
from __future__ import annotations

import numpy as np
from numba import njit

from nvc.entropy.range_coder import FAST, SLOW, adapt, get_bit, get_raw, put_bit, put_raw

ENCODE, DECODE, MEASURE, TALLY = 0, 1, 2, 3
COST_UNIT = 4096              # MEASURE counts in 1/4096 bit, in state[0]

_COST = (-np.log2((np.arange(2048) + 0.5) / 2048)).astype(np.float32)
_COST_INT = np.rint(_COST * COST_UNIT).astype(np.int64)


@njit(cache=True, nogil=True)
def cost0(contexts, c):
    """Bits of a 0 in context c."""
    return np.float64(_COST[(contexts[c, FAST] + contexts[c, SLOW]) >> 6])


@njit(cache=True, nogil=True)
def cost1(contexts, c):
    """Bits of a 1 in context c."""
    return np.float64(_COST[2047 - ((contexts[c, FAST] + contexts[c, SLOW]) >> 6)])


@njit(cache=True, nogil=True)
def code_bit(direction, state, buffer, contexts, c, bit):
    """Encode, decode, measure or count one adaptive bit; -> the bit."""
    if direction == ENCODE:
        put_bit(state, buffer, contexts, c, bit)
        return bit
    if direction == DECODE:
        return get_bit(state, buffer, contexts, c)
    if direction == TALLY:
        contexts[c, bit] += 1
        return bit
    p = (contexts[c, FAST] + contexts[c, SLOW]) >> 6
    state[0] += _COST_INT[p] if bit == 0 else _COST_INT[2047 - p]
    adapt(contexts, c, bit)
    return bit


@njit(cache=True, nogil=True)
def code_raw(direction, state, buffer, value, bits):
    """The same for `bits` equally likely bits, which TALLY does not count; -> the value."""
    if direction == ENCODE:
        put_raw(state, buffer, value, bits)
    elif direction == DECODE:
        return get_raw(state, buffer, bits)
    else:
        state[0] += bits * COST_UNIT
    return value
