"""How numba code calls small functions written as LLVM vectors: where loops would not become vectors by themselves.

A kernel is an LLVM function that takes pointers, int64 and float64. numba code calls it with (array, place) for each
pointer: a C-contiguous array, and the index of an element counted through all its dimensions. LLVM turns vectors into
what the machine has, so kernels run everywhere; their integers are exact, their floats are rounded in the order
written. A kernel is never inlined: what calls it compiles in a fraction of the time.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np import arrayobj

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
_LLVM = {types.int64: I64, types.float64: F64, types.uint8: I8, types.int16: I16, types.uint16: I16, types.int32: I32}

Body = Callable[..., ir.Value | None]
kernel_caller: Any = intrinsic        # hides the typing context, which numba adds, from those who call


def vector(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


def splat(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [kind.element(value)] * kind.count)


def spread(b: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of `count` times the value."""
    first = b.insert_element(ir.Constant(vector(value.type, count), ir.Undefined), value, I32(0))
    return shuffle(b, first, first, [0] * count)


def shuffle(b: ir.IRBuilder, a: ir.Value, c: ir.Value, places: Sequence[int]) -> ir.Value:
    return b.shuffle_vector(a, c, ir.Constant(vector(I32, len(places)), [I32(p) for p in places]))


def load(b: ir.IRBuilder, first: ir.Value, count: int) -> ir.Value:
    """`count` elements from a pointer on, aligned or not."""
    return b.load(b.bitcast(first, vector(first.type.pointee, count).as_pointer()), align=1)


def store(b: ir.IRBuilder, value: ir.Value, first: ir.Value) -> None:
    b.store(value, b.bitcast(first, value.type.as_pointer()), align=1)


def call(b: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    kind = ir.FunctionType(result, [a.type for a in args])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), args)


def _named(name: str, v: ir.Value) -> str:
    return f"llvm.{name}.v{v.type.count}i{v.type.element.width}"


def absolute(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    return call(b, _named("abs", v), v.type, v, ir.IntType(1)(0))


def clamped(b: ir.IRBuilder, v: ir.Value, low: int, high: int) -> ir.Value:
    """Signed."""
    v = call(b, _named("smax", v), v.type, v, splat(v.type, low))
    return call(b, _named("smin", v), v.type, v, splat(v.type, high))


def total(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    return call(b, _named("vector.reduce.add", v), v.type.element, v)


def kernel(name: str, body: Body, result: Any, kinds: Sequence[Any], given: Sequence[Any]) -> tuple[Any, Any]:
    """What a kernel_caller returns: its signature, and the code that calls the LLVM function `name`.

    kinds: the kernel's arguments: int64, float64, or an element type for a pointer. given: numba's types of what the
    caller got. body(builder, *arguments) gives the result; it is put where the function is not yet defined."""
    parameters: list[Any] = []
    for kind in kinds:
        if kind in (types.int64, types.float64):
            parameters.append(kind)
            continue
        array = given[len(parameters)]
        if not isinstance(array, types.Array) or array.dtype != kind or array.layout != "C":
            raise TypingError(f"{name} takes C-contiguous arrays of {kind}, got {array}")
        parameters += [array, types.int64]
    numbers = (types.int64, types.float64)
    llvm = [_LLVM[kind] if kind in numbers else _LLVM[kind].as_pointer() for kind in kinds]
    answer = ir.VoidType() if result == types.void else _LLVM[result]

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        function = cgutils.get_or_insert_function(b.module, ir.FunctionType(answer, llvm), name)
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            inner = ir.IRBuilder(function.append_basic_block())
            value = body(inner, *function.args)
            if value is None:
                inner.ret_void()
            else:
                inner.ret(value)
        values, at = [], 0
        for kind in kinds:
            if kind in numbers:
                values.append(args[at])
                at += 1
            else:
                data = arrayobj.make_array(signature.args[at])(context, b, args[at]).data
                values.append(b.gep(data, [args[at + 1]]))
                at += 2
        answer_ = b.call(function, values)
        return context.get_dummy_value() if result == types.void else answer_
    return result(*parameters), generate
