"""Interpolation taps and overlap weights, sixteen samples at a time. Integers only: this belongs to the decoder.

    across8, across4    int16 row = taps * bytes: sums of 8 (or 4) neighbours in a row, unrounded
    down8, down4        sums of 8 (or 4) rows of those, + 2048, >> 12, clamped to 0..255, weighted and added up
    unfiltered          bytes, weighted and added up

Weights: weight (of the row) times weights (of each column); what is added up stays below 2**16 because all weights
that meet in a sample sum to 256. Sums of a row: 8 bits x 64 with positive taps of at most 88 and negative ones of at
least -24 fit into int16. Written as LLVM vectors (nvc/machine/simd.py), as numba's loops over this many rows test each
pair of them for overlap, which takes longer than the sums.
"""
from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import int16, int64, uint8, uint16, void

from nvc.machine.simd import I16, I32, I64, clamped, kernel, kernel_caller, load, splat, spread, store, vector

LANES = 16
_WIDE, _NARROW = vector(I32, LANES), vector(I16, LANES)
Body = Callable[..., None]


def _across(n: int) -> Body:
    def body(b: ir.IRBuilder, source: ir.Value, taps: ir.Value, target: ir.Value) -> None:
        total = splat(_NARROW, 0)
        for k in range(n):
            samples = b.zext(load(b, b.gep(source, [I64(k)]), LANES), _NARROW)
            total = b.add(total, b.mul(samples, spread(b, b.load(b.gep(taps, [I64(k)])), LANES)))
        store(b, total, target)
    return body


def _add(b: ir.IRBuilder, samples: ir.Value, weight: ir.Value, weights: ir.Value, target: ir.Value) -> None:
    """target += samples * weight * weights, uint16."""
    factors = b.mul(load(b, weights, LANES), spread(b, b.trunc(weight, I16), LANES))
    store(b, b.add(load(b, target, LANES), b.mul(samples, factors)), target)


def _down(n: int) -> Body:
    def body(b: ir.IRBuilder, rows: ir.Value, pitch: ir.Value, taps: ir.Value, weight: ir.Value, weights: ir.Value,
             target: ir.Value) -> None:
        total = splat(_WIDE, 2048)
        for k in range(n):
            sums = b.sext(load(b, b.gep(rows, [b.mul(pitch, I64(k))]), LANES), _WIDE)
            tap = b.sext(b.load(b.gep(taps, [I64(k)])), I32)
            total = b.add(total, b.mul(sums, spread(b, tap, LANES)))
        samples = clamped(b, b.ashr(total, splat(_WIDE, 12)), 0, 255)
        _add(b, b.trunc(samples, _NARROW), weight, weights, target)
    return body


def _unfiltered(b: ir.IRBuilder, source: ir.Value, weight: ir.Value, weights: ir.Value, target: ir.Value) -> None:
    _add(b, b.zext(load(b, source, LANES), _NARROW), weight, weights, target)


@kernel_caller
def across8(typing, source, source_place, taps, taps_place, target, target_place):
    """uint8 source [16 + 7], int16 taps [8], int16 target [16]."""
    return kernel("nvc.across8", _across(8), void, (uint8, int16, int16),
                  (source, source_place, taps, taps_place, target))


@kernel_caller
def across4(typing, source, source_place, taps, taps_place, target, target_place):
    """uint8 source [16 + 3], int16 taps [4], int16 target [16]."""
    return kernel("nvc.across4", _across(4), void, (uint8, int16, int16),
                  (source, source_place, taps, taps_place, target))


@kernel_caller
def down8(typing, rows, rows_place, pitch, taps, taps_place, weight, weights, weights_place, target, target_place):
    """int16 rows [8, pitch], int16 taps [8], weight 0..16, uint16 weights [16], uint16 target [16]."""
    return kernel("nvc.down8", _down(8), void, (int16, int64, int16, int64, uint16, uint16),
                  (rows, rows_place, pitch, taps, taps_place, weight, weights, weights_place, target))


@kernel_caller
def down4(typing, rows, rows_place, pitch, taps, taps_place, weight, weights, weights_place, target, target_place):
    """The same with four rows and taps."""
    return kernel("nvc.down4", _down(4), void, (int16, int64, int16, int64, uint16, uint16),
                  (rows, rows_place, pitch, taps, taps_place, weight, weights, weights_place, target))


@kernel_caller
def unfiltered(typing, source, source_place, weight, weights, weights_place, target, target_place):
    """uint8 source [16], weight 0..16, uint16 weights [16], uint16 target [16]."""
    return kernel("nvc.unfiltered", _unfiltered, void, (uint8, int64, uint16, uint16),
                  (source, source_place, weight, weights, weights_place, target))
