r"""Sixteen float32 numbers side by side as one value of a Numba kernel.

LLVM vectorizes a loop only if it can prove, or test at run time, that no two arrays overlap, and
it keeps sums of such a loop in memory. With a type for a vector a kernel says itself what runs
side by side and what stays in registers; LLVM cuts the sixteen into what the processor has (one
register of AVX-512, two of AVX2, four of NEON).

Memory is a one-dimensional array of float32, or of uint16 that holds the bits of bfloat16.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

# Compiles a kernel: it runs without the interpreter lock, is kept on disk, and does not count the
# references to its arrays, which inside its loops would cost more than the arithmetic. For that it
# must not make arrays of its own.
KERNEL = njit(nogil=True, cache=True, error_model="numpy", _nrt=False)

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
# Products and sums may be one instruction; nothing else is reordered.
_FLAGS = ("contract", "nsz")


class LanesType(types.Type):
    r"""The Numba type of a vector."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


@intrinsic
def load(typing_context: Any, memory: Any, at: Any, width: Any) -> Any:
    r"""The :obj:`width` numbers from :obj:`memory[at]` on, and zeros up to sixteen."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        width = arguments[2]
        pointer = _pointer(context, builder, signature, arguments)
        x = cgutils.alloca_once(builder, _VECTOR)
        with builder.if_else(_all_of(builder, width), likely=True) as (all_of, part):
            with all_of:
                whole = builder.load(_vector_pointer(builder, pointer), align=_size(pointer))
                builder.store(_wide(builder, whole), x)
            with part:
                builder.store(_wide(builder, _masked(builder, "load", pointer, width)), x)
        return builder.load(x)

    return lanes(memory, at, width), generate


@intrinsic
def store(typing_context: Any, memory: Any, at: Any, width: Any, x: Any) -> Any:
    r"""Writes the first :obj:`width` numbers of :obj:`x` from :obj:`memory[at]` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        width, x = arguments[2:]
        pointer = _pointer(context, builder, signature, arguments)
        x = _narrow(builder, x, pointer.type.pointee)
        with builder.if_else(_all_of(builder, width), likely=True) as (all_of, part):
            with all_of:
                builder.store(x, _vector_pointer(builder, pointer), align=_size(pointer))
            with part:
                _masked(builder, "store", pointer, width, x)
        return context.get_dummy_value()

    return types.void(memory, at, width, x), generate


@intrinsic
def number(typing_context: Any, memory: Any, at: Any) -> Any:
    r"""The number :obj:`memory[at]`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _wide(builder, builder.load(_pointer(context, builder, signature, arguments)))

    return types.float32(memory, at), generate


@intrinsic
def put(typing_context: Any, memory: Any, at: Any, x: Any) -> Any:
    r"""Makes the number :obj:`memory[at]` to be :obj:`x`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(memory, at, x), generate


@intrinsic
def add_totals(typing_context: Any, memory: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    r"""Adds the sums of the sixteen numbers of each of four vectors to the four numbers from
    :obj:`memory[at]` on, which takes half of what four :func:`total` take."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments)
        pointer = builder.bitcast(pointer, ir.VectorType(_FLOAT, 4).as_pointer())
        a, b, c, d = arguments[2:]
        halves = _fold(builder, _fold(builder, a, b, 8), _fold(builder, c, d, 8), 4)
        sums = _fold(builder, halves, halves, 2, 8)
        sums = _fold(builder, sums, sums, 1, 4)
        before = builder.load(pointer, align=4)
        builder.store(builder.fadd(before, sums), pointer, align=4)
        return context.get_dummy_value()

    return types.void(memory, at, a, b, c, d), generate


@intrinsic
def fill(typing_context: Any, x: Any) -> Any:
    r"""A vector of sixteen times the number :obj:`x`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _as_vector(context, builder, arguments[0], x)

    return lanes(x), generate


@intrinsic
def total(typing_context: Any, x: Any) -> Any:
    r"""The sum of the sixteen numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        reduce = builder.module.declare_intrinsic(
            name, fnty=ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
        )
        return builder.call(reduce, [_FLOAT(-0.0), arguments[0]], fastmath=("reassoc",))

    return types.float32(x), generate


@intrinsic
def lower_of(typing_context: Any, x: Any, bound: Any) -> Any:
    r"""The lower of both; a NaN in :obj:`x` stays."""
    return lanes(x, bound), _chooser(">")


@intrinsic
def higher_of(typing_context: Any, x: Any, bound: Any) -> Any:
    r"""The higher of both; a NaN in :obj:`x` stays."""
    return lanes(x, bound), _chooser("<")


@intrinsic
def where_above(typing_context: Any, x: Any, bound: Any, then: Any, otherwise: Any) -> Any:
    r"""The numbers of :obj:`then` where :obj:`x` is above the bound or NaN, of :obj:`otherwise`
    elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, bound, *choices = (
            _as_vector(context, builder, *pair) for pair in zip(arguments, signature.args)
        )
        return builder.select(builder.fcmp_unordered(">", x, bound), *choices)

    return lanes(x, bound, then, otherwise), generate


@intrinsic
def round_to_integer(typing_context: Any, x: Any) -> Any:
    r"""The nearest integers of numbers below :math:`2^{22}`, as the low bits of what
    :func:`times_two_to_the` takes, and as numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # The sum with 1.5 * 2^23 has no room for a fraction. No flag lets LLVM undo it.
        shift = _constant(1.5 * 2**23)
        shifted = builder.fadd(arguments[0], shift)
        pair = (shifted, builder.fsub(shifted, shift))
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(lanes, 2)(x), generate


@intrinsic
def times_two_to_the(typing_context: Any, x: Any, exponent: Any) -> Any:
    r"""Numbers times powers of two, of exponents by :func:`round_to_integer`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(_INT, LANES)
        bits, exponent = (builder.bitcast(argument, integers) for argument in arguments)
        moved = builder.shl(exponent, integers([23] * LANES))
        return builder.bitcast(builder.add(bits, moved), _VECTOR)

    return lanes(x, exponent), generate


@intrinsic
def mantissa_and_exponent(typing_context: Any, x: Any) -> Any:
    r"""Positive numbers as :math:`m \, 2^e` with :math:`m` between :math:`\sqrt{1/2}` and
    :math:`\sqrt{2}`, and both as numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.VectorType(_INT, LANES))
        bits_of_root = _integer(bits, 0x3F3504F3)
        exponent = builder.ashr(builder.sub(bits, bits_of_root), _integer(bits, 23))
        mantissa = builder.sub(bits, builder.shl(exponent, _integer(bits, 23)))
        pair = (builder.bitcast(mantissa, _VECTOR), builder.sitofp(exponent, _VECTOR))
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(lanes, 2)(x), generate


def _define(instruction: str, *symbols: Callable[..., Any]) -> None:
    @intrinsic
    def combine(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pair = (_as_vector(context, builder, *pair) for pair in zip(arguments, signature.args))
            return getattr(builder, instruction)(*pair, flags=_FLAGS)

        return lanes(a, b), generate

    def of_types(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: combine(a, b)) if lanes in (a, b) else None

    for symbol in symbols:
        overload(symbol, inline="always")(of_types)


_define("fadd", operator.add, operator.iadd)
_define("fsub", operator.sub, operator.isub)
_define("fmul", operator.mul, operator.imul)
_define("fdiv", operator.truediv, operator.itruediv)


def _chooser(comparison: str) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, bound = (_as_vector(context, builder, *pair) for pair in zip(arguments, signature.args))
        return builder.select(builder.fcmp_ordered(comparison, x, bound), bound, x)

    return generate


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _vector_pointer(builder: Any, pointer: Any) -> Any:
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, LANES).as_pointer())


def _masked(builder: Any, access: str, pointer: Any, width: Any, x: Any = None) -> Any:
    r"""Loads, or stores of :obj:`x`, the first :obj:`width` numbers."""
    size, pointer = _size(pointer), _vector_pointer(builder, pointer)
    vector = pointer.type.pointee
    index = ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES)))
    count = _splat(builder, builder.trunc(width, _INT), index.type)
    how = [_INT(size), builder.icmp_signed("<", index, count)]
    if access == "load":
        result, arguments = vector, [pointer, *how, ir.Constant(vector, None)]
    else:
        result, arguments = ir.VoidType(), [x, pointer, *how]
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    letter = "f" if vector.element == _FLOAT else "i"
    name = f"llvm.masked.{access}.v{LANES}{letter}{8 * size}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _fold(builder: Any, a: Any, b: Any, distance: int, size: int = LANES) -> Any:
    r"""Adds numbers :obj:`distance` apart, first those of :obj:`a`, then those of :obj:`b` (or of
    :obj:`a` alone, if the result shall have but :obj:`size` numbers)."""
    count = a.type.count
    starts = [at for at in range(2 * count) if at % (2 * distance) < distance][:size]
    low, high = (
        builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(_INT, size), [at + offset for at in starts])
        )
        for offset in (0, distance)
    )
    return builder.fadd(low, high, flags=_FLAGS)


def _all_of(builder: Any, width: Any) -> Any:
    return builder.icmp_signed("==", width, width.type(LANES))


def _size(pointer: Any) -> int:
    element = pointer.type.pointee
    return 4 if element == _FLOAT else element.width // 8


def _constant(x: float) -> Any:
    return _VECTOR([x] * LANES)


def _as_vector(context: Any, builder: Any, x: Any, numba_type: Any) -> Any:
    if numba_type == lanes:
        return x
    x = context.cast(builder, x, numba_type, types.float32)
    return _splat(builder, x, _VECTOR)


def _splat(builder: Any, x: Any, vector: Any) -> Any:
    first = builder.insert_element(vector(ir.Undefined), x, _INT(0))
    mask = ir.Constant(ir.VectorType(_INT, LANES), None)
    return builder.shuffle_vector(first, vector(ir.Undefined), mask)


def _wide(builder: Any, x: Any) -> Any:
    r"""Numbers as float32, from the bits of bfloat16 if they are integers, from booleans if they
    are bytes."""
    element = x.type.element if isinstance(x.type, ir.VectorType) else x.type
    if element == _FLOAT:
        return x
    if element.width == 8:
        return builder.uitofp(x, _like(x, _FLOAT))
    bits = builder.zext(x, _like(x, _INT))
    return builder.bitcast(builder.shl(bits, _integer(bits, 16)), _like(x, _FLOAT))


def _narrow(builder: Any, x: Any, element: Any) -> Any:
    r"""Numbers of float32 as they are in memory: the bits of the nearest bfloat16, of two equally
    near the even one, if memory holds integers."""
    if element == _FLOAT:
        return x
    bits = builder.bitcast(x, _like(x, _INT))
    odd = builder.and_(builder.lshr(bits, _integer(bits, 16)), _integer(bits, 1))
    rounded = builder.add(bits, builder.add(odd, _integer(bits, 0x7FFF)))
    # Rounding could make an infinity of a NaN; a NaN keeps its sign and turns quiet instead.
    quiet = builder.or_(bits, _integer(bits, 0x400000))
    bits = builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
    return builder.trunc(builder.lshr(bits, _integer(bits, 16)), _like(x, element))


def _like(x: Any, element: Any) -> Any:
    return ir.VectorType(element, LANES) if isinstance(x.type, ir.VectorType) else element


def _integer(like: Any, value: int) -> Any:
    if isinstance(like.type, ir.VectorType):
        return like.type([value] * LANES)
    return like.type(value)
