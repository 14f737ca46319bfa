"""Block differences for the encoder's search.

Each takes the first sample of a block in the picture x and in the prediction p, with the pitch of its rows:

    sad8, sad16             sum of |x - p| over 8x8, 16x16
    satd8, satd8_pair       sum of |H d H'| / 4 to the nearest, H the 8x8 Hadamard matrix
    satd16, satd16_pair     their sum over the four 8x8 of 16x16, in half the time
    bits8, bits8_pair       sum of log2(1 + gain c^2), c the 8x8 DCT of d

d is x - p, or for the pairs x - (p + q + 1) / 2, the mean of two predictions rounded up. As LLVM vectors
(nvc/machine/simd.py) they are about ten times faster than loops, and give the same on all machines.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import float64, int64, uint8

from nvc.machine.simd import (
    F32,
    F64,
    I16,
    I32,
    I64,
    absolute,
    kernel,
    kernel_caller,
    load,
    shuffle,
    splat,
    spread,
    total,
    vector,
)

Sum = Callable[..., ir.Value]


def _block(b: ir.IRBuilder, first: ir.Value, pitch: ir.Value, size: int, kind: ir.Type = I16) -> ir.Value:
    """The block's samples, row after row, as one vector of `kind`. size: 8 or 16."""
    rows = [load(b, b.gep(first, [b.mul(pitch, I64(r))]), size) for r in range(size)]
    while len(rows) > 1:
        n = 2 * rows[0].type.count
        rows = [shuffle(b, rows[i], rows[i + 1], range(n)) for i in range(0, len(rows), 2)]
    return b.zext(rows[0], vector(kind, size * size))


def _one(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value) -> ir.Value:
    return b.sub(_block(b, x, x_pitch, 8), _block(b, p, p_pitch, 8))


def _pair(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value, q: ir.Value,
          q_pitch: ir.Value) -> ir.Value:
    both = b.add(_block(b, p, p_pitch, 8), _block(b, q, q_pitch, 8))
    one = splat(both.type, 1)
    return b.sub(_block(b, x, x_pitch, 8), b.lshr(b.add(both, one), one))


def _absolute_sum(size: int) -> Sum:
    def body(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value) -> ir.Value:
        d = b.sub(_block(b, x, x_pitch, size, I32), _block(b, p, p_pitch, size, I32))
        return b.zext(total(b, absolute(b, d)), I64)
    return body


def _hadamard_sum(b: ir.IRBuilder, d: ir.Value) -> ir.Value:
    """int64 (sum of |the 64 Walsh-Hadamard sums of d| + 2) >> 2, d <64 x i16> within +-255.

    Each step adds and subtracts the two halves and interleaves the results, which leaves the same step to do again:
    six of them are the two-dimensional transform. Sums stay within 64 * 255 < 2**15. Of the last step only the sum of
    absolute values counts, and |u + v| + |u - v| = 2 max(|u|, |v|).
    """
    for _ in range(5):
        u, v = shuffle(b, d, d, range(32)), shuffle(b, d, d, range(32, 64))
        d = shuffle(b, b.add(u, v), b.sub(u, v), [k for i in range(32) for k in (i, 32 + i)])
    u, v = absolute(b, shuffle(b, d, d, range(32))), absolute(b, shuffle(b, d, d, range(32, 64)))
    largest = b.select(b.icmp_unsigned(">", u, v), u, v)
    half = total(b, b.zext(largest, vector(I32, 32)))
    return b.zext(b.lshr(b.add(half, I32(1)), I32(1)), I64)


def _rows16(b: ir.IRBuilder, first: ir.Value, pitch: ir.Value) -> list[ir.Value]:
    """Of 16x16 samples, rows r and r + 8 beside each other: eight <32 x i16>."""
    rows = [load(b, b.gep(first, [b.mul(pitch, I64(r))]), 16) for r in range(16)]
    return [b.zext(shuffle(b, rows[r], rows[r + 8], range(32)), vector(I16, 32)) for r in range(8)]


def _hadamard_sum16(b: ir.IRBuilder, d: list[ir.Value]) -> ir.Value:
    """As `_hadamard_sum`, of four 8x8: d as _rows16 gives them.

    Down the rows whole vectors are added and subtracted. Along a row each eight samples stay by themselves: of two
    vectors the even samples, and the odd ones, are put together, three times over."""
    for apart in (1, 2, 4):
        for k in (k for k in range(8) if not k & apart):
            d[k], d[k + apart] = b.add(d[k], d[k + apart]), b.sub(d[k], d[k + apart])
    even = [8 * group + side + k for group in range(4) for side in (0, 32) for k in (0, 2, 4, 6)]
    odd = [k + 1 for k in even]
    for _ in range(2):
        pairs = [(shuffle(b, d[k], d[k + 1], even), shuffle(b, d[k], d[k + 1], odd)) for k in range(0, 8, 2)]
        d = [made for u, v in pairs for made in (b.add(u, v), b.sub(u, v))]
    sums = []
    for k in range(0, 8, 2):
        u, v = (absolute(b, shuffle(b, d[k], d[k + 1], places)) for places in (even, odd))
        sums.append(b.select(b.icmp_unsigned(">", u, v), u, v))
    most = b.add(b.add(sums[0], sums[1]), b.add(sums[2], sums[3]))     # at most 4 * 64 * 255 < 2**16
    halves = b.zext(most, vector(I32, 32))                             # eight of each 8x8, to be added up
    for n in (16, 8, 4):
        halves = b.add(*(shuffle(b, halves, halves, range(side, 2 * n, 2)) for side in (0, 1)))
    one = splat(halves.type, 1)
    return b.zext(total(b, b.lshr(b.add(halves, one), one)), I64)


# What each output of _dct is too large by, but for sqrt(8).
_SCALE = (1.0, 1.387039845, 1.306562965, 1.175875602, 1.0, 0.785694958, 0.541196100, 0.275899379)


def _dct(b: ir.IRBuilder, d: Sequence[ir.Value]) -> list[ir.Value]:
    """The eight sums of an 8-point DCT, each times its _SCALE and sqrt(8) (Arai, Agui and Nakajima 1988)."""
    def times(v: ir.Value, factor: float) -> ir.Value:
        return b.fmul(v, splat(v.type, factor))
    s0, s1, s2, s3 = (b.fadd(d[k], d[7 - k]) for k in range(4))
    d0, d1, d2, d3 = (b.fsub(d[k], d[7 - k]) for k in range(4))
    e0, e1, e2, e3 = b.fadd(s0, s3), b.fadd(s1, s2), b.fsub(s1, s2), b.fsub(s0, s3)
    z1 = times(b.fadd(e2, e3), 0.707106781)
    o0, o1, o2 = b.fadd(d3, d2), b.fadd(d2, d1), b.fadd(d1, d0)
    z5 = times(b.fsub(o0, o2), 0.382683433)
    z2, z4 = b.fadd(times(o0, 0.541196100), z5), b.fadd(times(o2, 1.306562965), z5)
    z3 = times(o1, 0.707106781)
    z11, z13 = b.fadd(d0, z3), b.fsub(d0, z3)
    return [b.fadd(e0, e1), b.fadd(z11, z4), b.fadd(e3, z1), b.fsub(z13, z2),
            b.fsub(e0, e1), b.fadd(z13, z2), b.fsub(e3, z1), b.fsub(z11, z4)]


def _log_sum(b: ir.IRBuilder, d: ir.Value, gain: ir.Value) -> ir.Value:
    """float64 sum of log2(1 + gain c^2) over the 64 DCT coefficients c of d <64 x i16>; gain float64 <= 2**9.

    The logarithm is taken of products of four: their exponent, and for the fraction their mantissa minus one, which is
    at most 0.09 too small. A factor is at most 1 + 2**9 * 2040**2 < 2**31.99, so a product of four stays finite.
    """
    wide = vector(F32, 8)
    rows = _dct(b, [b.sitofp(shuffle(b, d, d, range(8 * r, 8 * r + 8)), wide) for r in range(8)])
    for _ in range(3):                             # transpose: interleave the upper and the lower four, three times
        rows = [shuffle(b, rows[i >> 1], rows[(i >> 1) + 4], [k + 4 * (i & 1) + 8 * side for k in range(4)
                                                              for side in range(2)]) for i in range(8)]
    rows = _dct(b, rows)
    gains = spread(b, b.fptrunc(gain, F32), 8)
    factors = []
    for r, row in enumerate(rows):
        scale = ir.Constant(wide, [F32(1.0 / (64.0 * (_SCALE[r] * _SCALE[k]) ** 2)) for k in range(8)])
        factors.append(b.fadd(b.fmul(b.fmul(row, row), b.fmul(scale, gains)), splat(wide, 1.0)))
    logs = []
    for k in (0, 4):
        product = b.fmul(b.fmul(factors[k], factors[k + 1]), b.fmul(factors[k + 2], factors[k + 3]))
        word = b.bitcast(product, vector(I32, 8))
        logs.append(b.lshr(b.sub(word, splat(word.type, 127 << 23)), splat(word.type, 6)))
    return b.fmul(b.uitofp(total(b, b.add(logs[0], logs[1])), F64), F64(2.0 ** -17))


def _satd_one(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
    return _hadamard_sum(b, _one(b, *args))


def _satd_pair(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
    return _hadamard_sum(b, _pair(b, *args))


def _satd16_one(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value) -> ir.Value:
    rows = zip(_rows16(b, x, x_pitch), _rows16(b, p, p_pitch), strict=True)
    return _hadamard_sum16(b, [b.sub(v, u) for v, u in rows])


def _satd16_pair(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value, q: ir.Value,
                 q_pitch: ir.Value) -> ir.Value:
    one = splat(vector(I16, 32), 1)
    rows = zip(_rows16(b, x, x_pitch), _rows16(b, p, p_pitch), _rows16(b, q, q_pitch), strict=True)
    return _hadamard_sum16(b, [b.sub(v, b.lshr(b.add(b.add(u, w), one), one)) for v, u, w in rows])


def _bits_one(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
    return _log_sum(b, _one(b, *args[:-1]), args[-1])


def _bits_pair(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
    return _log_sum(b, _pair(b, *args[:-1]), args[-1])


_PLANE = (uint8, int64)


@kernel_caller
def sad8(typing, x, x_place, x_pitch, p, p_place, p_pitch):
    return kernel("nvc.sad8", _absolute_sum(8), int64, _PLANE * 2, (x, x_place, x_pitch, p))


@kernel_caller
def sad16(typing, x, x_place, x_pitch, p, p_place, p_pitch):
    return kernel("nvc.sad16", _absolute_sum(16), int64, _PLANE * 2, (x, x_place, x_pitch, p))


@kernel_caller
def satd8(typing, x, x_place, x_pitch, p, p_place, p_pitch):
    return kernel("nvc.satd8", _satd_one, int64, _PLANE * 2, (x, x_place, x_pitch, p))


@kernel_caller
def satd8_pair(typing, x, x_place, x_pitch, p, p_place, p_pitch, q, q_place, q_pitch):
    return kernel("nvc.satd8_pair", _satd_pair, int64, _PLANE * 3, (x, x_place, x_pitch, p, p_place, p_pitch, q))


@kernel_caller
def satd16(typing, x, x_place, x_pitch, p, p_place, p_pitch):
    return kernel("nvc.satd16", _satd16_one, int64, _PLANE * 2, (x, x_place, x_pitch, p))


@kernel_caller
def satd16_pair(typing, x, x_place, x_pitch, p, p_place, p_pitch, q, q_place, q_pitch):
    return kernel("nvc.satd16_pair", _satd16_pair, int64, _PLANE * 3, (x, x_place, x_pitch, p, p_place, p_pitch, q))


@kernel_caller
def bits8(typing, x, x_place, x_pitch, p, p_place, p_pitch, gain):
    return kernel("nvc.bits8", _bits_one, float64, (*_PLANE * 2, float64), (x, x_place, x_pitch, p))


@kernel_caller
def bits8_pair(typing, x, x_place, x_pitch, p, p_place, p_pitch, q, q_place, q_pitch, gain):
    return kernel("nvc.bits8_pair", _bits_pair, float64, (*_PLANE * 3, float64),
                  (x, x_place, x_pitch, p, p_place, p_pitch, q))
