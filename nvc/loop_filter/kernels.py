"""What nvc/loop_filter/planes.py defines, sixteen samples at a time, as LLVM vectors (nvc/machine/simd.py)."""

from __future__ import annotations

from llvmlite import ir
from numba import int16, int64, uint8, void

from nvc.machine.simd import (
    I16,
    I32,
    I64,
    absolute,
    call,
    clamped,
    kernel,
    kernel_caller,
    load,
    shuffle,
    splat,
    spread,
    store,
    vector,
)

LANES = 16
BLOCK = 4                       # samples each way that share a class
AROUND = 1                      # samples around a block whose gradients count for its class
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))          # rows, columns: across, down, both diagonals
# One of each pair of taps, which lie opposite each other: a diamond of 7×7 samples.
TAPS = tuple((y, x) for y in range(4) for x in range(-3, 4) if 0 < y + abs(x) <= 3 and (y, x) > (0, 0))
CLIPS = 3                       # limits of a difference, each with a weight of its own
FRACTION = 10                   # bits of a weight behind the point
_BYTES, _NARROW, _WIDE = (vector(kind, LANES) for kind in (ir.IntType(8), I16, I32))


def _samples(b: ir.IRBuilder, source: ir.Value, pitch: ir.Value, y: int, x: int) -> ir.Value:
    place = b.add(b.mul(pitch, I64(y)), I64(x))
    return b.zext(load(b, b.gep(source, [place]), LANES), _NARROW)


def _gradients(b: ir.IRBuilder, source: ir.Value, pitch: ir.Value, target: ir.Value, target_pitch: ir.Value) -> None:
    for k, (y, x) in enumerate(DIRECTIONS):
        total = splat(_NARROW, 0)
        for row in range(-AROUND, BLOCK + AROUND):
            middle = _samples(b, source, pitch, row, 0)
            pair = b.add(_samples(b, source, pitch, row + y, x), _samples(b, source, pitch, row - y, -x))
            total = b.add(total, absolute(b, b.sub(pair, b.add(middle, middle))))
        store(b, total, b.gep(target, [b.mul(target_pitch, I64(k))]))


def _limited(b: ir.IRBuilder, v: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    return call(b, "llvm.smin.v16i16", _NARROW, call(b, "llvm.smax.v16i16", _NARROW, v, low), high)


def _filtered(b: ir.IRBuilder, source: ir.Value, pitch: ir.Value, weights: ir.Value, first: ir.Value, second: ir.Value,
              third: ir.Value, fourth: ir.Value, limits: ir.Value, target: ir.Value, target_pitch: ir.Value) -> None:
    high = [spread(b, b.load(b.gep(limits, [I64(j)])), LANES) for j in range(CLIPS)]
    low = [b.sub(splat(_NARROW, 0), v) for v in high]
    middle = [_samples(b, source, pitch, row, 0) for row in range(BLOCK)]
    totals: list[ir.Value] = [splat(_WIDE, 1 << (FRACTION - 1))] * BLOCK
    for k, (y, x) in enumerate(TAPS):
        factors = []
        for j in range(CLIPS):
            place = I64((k * CLIPS + j) * BLOCK)
            parts = [load(b, b.gep(weights, [b.add(own, place)]), BLOCK) for own in (first, second, third, fourth)]
            halves = [shuffle(b, parts[n], parts[n + 1], range(2 * BLOCK)) for n in (0, 2)]
            factors.append(b.sext(shuffle(b, halves[0], halves[1], range(LANES)), _WIDE))
        for row in range(BLOCK):
            pair = [b.sub(_samples(b, source, pitch, row + s * y, s * x), middle[row]) for s in (1, -1)]
            for j in range(CLIPS):
                feature = b.add(*(_limited(b, v, low[j], high[j]) for v in pair))
                totals[row] = b.add(totals[row], b.mul(b.sext(feature, _WIDE), factors[j]))
    for row in range(BLOCK):
        moved = b.add(b.ashr(totals[row], splat(_WIDE, FRACTION)), b.sext(middle[row], _WIDE))
        store(b, b.trunc(clamped(b, moved, 0, 255), _BYTES), b.gep(target, [b.mul(target_pitch, I64(row))]))


@kernel_caller
def gradients(typing, source, place, pitch, target, target_place, target_pitch):
    """int16 target [4, 16]: by DIRECTIONS, sums down a block's rows and those AROUND of |a + b - 2 s|, where a and b
    are the neighbours of sample s. uint8 source: the first row's samples are at place."""
    return kernel("nvc.gradients", _gradients, void, (uint8, int64, int16, int64),
                  (source, place, pitch, target, target_place, target_pitch))


@kernel_caller
def filtered(typing, source, place, pitch, weights, weights_place, first, second, third, fourth, limits, limits_place,
             target, target_place, target_pitch):
    """uint8 target [4, 16]: four blocks of the source at place, filtered. int16 weights [.., TAPS, CLIPS, 4], each four
    times; first … fourth: where the weights of each block's class begin; int16 limits [CLIPS]."""
    return kernel("nvc.filtered", _filtered, void,
                  (uint8, int64, int16, int64, int64, int64, int64, int16, uint8, int64),
                  (source, place, pitch, weights, weights_place, first, second, third, fourth, limits, limits_place,
                   target, target_place, target_pitch))
