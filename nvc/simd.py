"""Block differences for the encoder's search, written as LLVM vectors: about ten times faster than loops.

Each takes flat uint8 arrays, with the place of a block's first sample and the distance of its rows in each:

    sad8, sad16             sum of |x - p| over 8x8, 16x16
    satd8, satd8_pair       sum of |H d H'| / 4 to the nearest, H the 8x8 Hadamard matrix
    bits8, bits8_pair       sum of log2(1 + gain c^2), c the 8x8 DCT of d

d is x - p, or for the pairs x - (p + q + 1) / 2, the mean of two predictions rounded up; p and q have the same pitch.
LLVM turns the vectors into what the machine has, so they run everywhere. The results are the same on all machines:
integers, or float32 sums and products in the order written here. Only the encoder uses them.

Each is a function of its own that LLVM must not inline: what calls it compiles in a fraction of the time.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_BYTES = _I8.as_pointer()


def _vector(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


def _all(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [kind.element(value)] * kind.count)


def _shuffle(b: ir.IRBuilder, a: ir.Value, c: ir.Value, places: Sequence[int]) -> ir.Value:
    return b.shuffle_vector(a, c, ir.Constant(_vector(_I32, len(places)), [_I32(p) for p in places]))


def _call(b: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    kind = ir.FunctionType(result, [a.type for a in args])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), args)


def _abs(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    return _call(b, f"llvm.abs.v{v.type.count}i{v.type.element.width}", v.type, v, ir.IntType(1)(0))


def _sum(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    return _call(b, f"llvm.vector.reduce.add.v{v.type.count}i{v.type.element.width}", v.type.element, v)


def _block(b: ir.IRBuilder, first: ir.Value, pitch: ir.Value, size: int, kind: ir.Type = _I16) -> ir.Value:
    """The block's samples, row after row, as one vector of `kind`. size: 8 or 16."""
    row = _vector(_I8, size).as_pointer()
    rows = [b.load(b.bitcast(b.gep(first, [b.mul(pitch, _I64(r))]), row), align=1) for r in range(size)]
    while len(rows) > 1:
        n = 2 * rows[0].type.count
        rows = [_shuffle(b, rows[i], rows[i + 1], range(n)) for i in range(0, len(rows), 2)]
    return b.zext(rows[0], _vector(kind, size * size))


def _mean(b: ir.IRBuilder, p: ir.Value, q: ir.Value) -> ir.Value:
    one = _all(p.type, 1)
    return b.lshr(b.add(b.add(p, q), one), one)


# ---------------------------------------------------------------- what is summed

def _hadamard_sum(b: ir.IRBuilder, d: ir.Value) -> ir.Value:
    """int64 (sum of |the 64 Walsh-Hadamard sums of d| + 2) >> 2, d <64 x i16> within +-255.

    Each step adds and subtracts the two halves and interleaves the results, which leaves the same step to do again:
    six of them are the two-dimensional transform. Sums stay within 64 * 255 < 2**15. Of the last step only the sum of
    absolute values counts, and |u + v| + |u - v| = 2 max(|u|, |v|).
    """
    for _ in range(5):
        u, v = _shuffle(b, d, d, range(32)), _shuffle(b, d, d, range(32, 64))
        d = _shuffle(b, b.add(u, v), b.sub(u, v), [k for i in range(32) for k in (i, 32 + i)])
    u, v = _abs(b, _shuffle(b, d, d, range(32))), _abs(b, _shuffle(b, d, d, range(32, 64)))
    largest = b.select(b.icmp_unsigned(">", u, v), u, v)
    total = _sum(b, b.zext(largest, _vector(_I32, 32)))
    return b.zext(b.lshr(b.add(total, _I32(1)), _I32(1)), _I64)


# What each output of _dct is too large by, but for sqrt(8).
_SCALE = (1.0, 1.387039845, 1.306562965, 1.175875602, 1.0, 0.785694958, 0.541196100, 0.275899379)


def _dct(b: ir.IRBuilder, d: Sequence[ir.Value]) -> list[ir.Value]:
    """The eight sums of an 8-point DCT, each times its _SCALE and sqrt(8) (Arai, Agui and Nakajima 1988)."""
    def times(v: ir.Value, factor: float) -> ir.Value:
        return b.fmul(v, _all(v.type, factor))
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
    """float64 sum of log2(1 + gain c^2) over the 64 DCT coefficients c of d <64 x i16>; gain float64 <= 2**10.

    The logarithm is taken of products of four: their exponent, and for the fraction their mantissa minus one, which is
    at most 0.09 too small. A factor is at most 1 + 2**10 * 2040**2 < 2**32, so a product of four is below 2**128.
    """
    wide = _vector(_F32, 8)
    rows = _dct(b, [b.sitofp(_shuffle(b, d, d, range(8 * r, 8 * r + 8)), wide) for r in range(8)])
    for _ in range(3):                             # transpose: interleave the upper and the lower four, three times
        rows = [_shuffle(b, rows[i >> 1], rows[(i >> 1) + 4], [k + 4 * (i & 1) + 8 * side for k in range(4)
                                                               for side in range(2)]) for i in range(8)]
    rows = _dct(b, rows)
    gains = b.insert_element(ir.Constant(wide, ir.Undefined), b.fptrunc(gain, _F32), _I32(0))
    gains = _shuffle(b, gains, gains, [0] * 8)
    factors = []
    for r, row in enumerate(rows):
        scale = ir.Constant(wide, [_F32(1.0 / (64.0 * (_SCALE[r] * _SCALE[k]) ** 2)) for k in range(8)])
        factors.append(b.fadd(b.fmul(b.fmul(row, row), b.fmul(scale, gains)), _all(wide, 1.0)))
    logs = []
    for k in (0, 4):
        product = b.fmul(b.fmul(factors[k], factors[k + 1]), b.fmul(factors[k + 2], factors[k + 3]))
        word = b.bitcast(product, _vector(_I32, 8))
        logs.append(b.lshr(b.sub(word, _all(word.type, 127 << 23)), _all(word.type, 6)))
    return b.fmul(b.uitofp(_sum(b, b.add(logs[0], logs[1])), _F64), _F64(2.0 ** -17))


# ---------------------------------------------------------------- functions that numba can call

Body = Callable[..., ir.Value]


def _kernel(name: str, result: ir.Type, planes: int, numbers: int, body: Body) -> Any:
    """Code that calls the LLVM function `name`, defined where it is not yet.

    The function takes (first sample, pitch) of each plane, then `numbers` float64."""
    kinds = [_BYTES, _I64] * planes + [_F64] * numbers

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        function = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, kinds), name)
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            inner = ir.IRBuilder(function.append_basic_block())
            inner.ret(body(inner, *function.args))
        values: list[ir.Value] = []
        for k in range(planes):
            plane, place, pitch = args[3 * k: 3 * k + 3]
            data = arrayobj.make_array(signature.args[3 * k])(context, b, plane).data
            values += [b.gep(data, [place]), pitch]
        return b.call(function, values + list(args[3 * planes:]))
    return generate


def _sad(size: int) -> Body:
    def body(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value) -> ir.Value:
        d = b.sub(_block(b, x, x_pitch, size, _I32), _block(b, p, p_pitch, size, _I32))
        return b.zext(_sum(b, _abs(b, d)), _I64)
    return body


def _one(sum_: Body) -> Body:
    def body(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value,
             *numbers: ir.Value) -> ir.Value:
        return sum_(b, b.sub(_block(b, x, x_pitch, 8), _block(b, p, p_pitch, 8)), *numbers)
    return body


def _pair(sum_: Body) -> Body:
    def body(b: ir.IRBuilder, x: ir.Value, x_pitch: ir.Value, p: ir.Value, p_pitch: ir.Value, q: ir.Value,
             q_pitch: ir.Value, *numbers: ir.Value) -> ir.Value:
        mean = _mean(b, _block(b, p, p_pitch, 8), _block(b, q, q_pitch, 8))
        return sum_(b, b.sub(_block(b, x, x_pitch, 8), mean), *numbers)
    return body


_INT, _REAL = types.int64, types.float64
_callable: Any = intrinsic        # takes the typing context, and hides it from callers


@_callable
def sad8(typing_context, x, x_place, x_pitch, p, p_place, p_pitch):
    return _INT(x, _INT, _INT, p, _INT, _INT), _kernel("nvc.sad8", _I64, 2, 0, _sad(8))


@_callable
def sad16(typing_context, x, x_place, x_pitch, p, p_place, p_pitch):
    return _INT(x, _INT, _INT, p, _INT, _INT), _kernel("nvc.sad16", _I64, 2, 0, _sad(16))


@_callable
def satd8(typing_context, x, x_place, x_pitch, p, p_place, p_pitch):
    return _INT(x, _INT, _INT, p, _INT, _INT), _kernel("nvc.satd8", _I64, 2, 0, _one(_hadamard_sum))


@_callable
def satd8_pair(typing_context, x, x_place, x_pitch, p, p_place, p_pitch, q, q_place, q_pitch):
    return (_INT(x, _INT, _INT, p, _INT, _INT, q, _INT, _INT),
            _kernel("nvc.satd8_pair", _I64, 3, 0, _pair(_hadamard_sum)))


@_callable
def bits8(typing_context, x, x_place, x_pitch, p, p_place, p_pitch, gain):
    return _REAL(x, _INT, _INT, p, _INT, _INT, _REAL), _kernel("nvc.bits8", _F64, 2, 1, _one(_log_sum))


@_callable
def bits8_pair(typing_context, x, x_place, x_pitch, p, p_place, p_pitch, q, q_place, q_pitch, gain):
    return (_REAL(x, _INT, _INT, p, _INT, _INT, q, _INT, _INT, _REAL),
            _kernel("nvc.bits8_pair", _F64, 3, 1, _pair(_log_sum)))
