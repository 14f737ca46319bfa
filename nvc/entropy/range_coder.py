"""The range coder: one byte stream for latents (static tables), motion (adaptive bits) and raw bits, in any order.

    bytes on the wire      b0 b1 b2 ... b(n-1), then zeros without end
    the number they spell  V = 0.b0 b1 b2 ...  (base 256), the coder narrows an interval around it

Arithmetic
    All state is int64 and never negative, so numba needs no unsigned types. With W = 2**56 and B = 2**48:

    (1)  B <= range <= W         after every coding step
    (2)  0 <= low < 2 W          encoder; bit 56 of low is a carry that belongs to the bytes already written
    (3)  0 <= value < range      decoder; value = (the next 56 bits of V) - low

    A step cuts the range into 2**16 equal parts, r = range >> 16, so 2**32 <= r <= 2**40 by (1), and takes the parts
    [start, stop) of them: low += r start, range = r (stop - start). Because stop - start >= 1 the new range is at least
    2**32 > 0, and at most r 2**16 <= W. Then, while range < B, the top byte of low (with its carry) is written and both
    are multiplied by 256: at most two times here, and (1) holds again. The interval only ever shrinks inside the one
    that held at the last written byte, where low < W and range <= W, hence (2); so a carry is 0 or 1. It cannot run
    off the front of the buffer, since V < 1.

    The parts of the range beyond r 2**16 are lost: less than 2**16 of 2**48, 2**-32 bit a symbol.
    An adaptive bit with probability p / 2**16 of being 0 takes r p for a 0 and *all* the rest for a 1.

    At the end the encoder rounds low up to a multiple of B. That adds less than B <= range, so the result lies in the
    interval and its lower 48 bits are zero: one byte ends every stream, and the decoder reads zeros after it.
    A decoder holds 7 bytes at the start and reads one whenever the encoder wrote one, so after the last symbol of an
    undamaged stream of n bytes it has read exactly n + 6: more is an overrun, less means bytes left over.

    Damaged bytes may put value at or beyond r 2**16; it is clamped to the last part, which keeps (3). So the decoder
    ends after the asked number of symbols whatever the bytes are, reads nothing outside its arrays, raises nothing.

Static tables
    Table t codes the integers -R[t]..R[t] in slots 0..2R[t], and slot 2R[t] + 1 is the escape, which a sign bit and
    the Exp-Golomb code (order 0) of |symbol| - R[t] - 1 follow. |symbol| <= 32767. Index 0 is "skip": it codes nothing
    and decodes as 0.

Adaptive bits
    Context c is a row of three integers: two estimates of P(bit = 0) in 1/65536, fast and slow, and the number of bits
    seen up to a cap. The mean of both estimates codes the bit. Both start with large steps, as an average of few
    samples should, and end at shifts 4 and 7 (the two-rate scheme of VVC, H.266 9.3.4.3, with AV1's start-up).

The method is Martin's range coder (1979) with the carry written back into the output.
"""
from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

TOTAL_BITS = 16
TOTAL = 1 << TOTAL_BITS
TOP = 1 << 56                 # W above
BOTTOM = 1 << 48              # B above
MAX_SYMBOL = 32767            # largest magnitude that the escape can carry
_LOW_MASK = BOTTOM - 1
_ESCAPE_BITS = 14             # longest Exp-Golomb prefix: |symbol| - R <= 2**15 - 1
_BYTES_PER_SYMBOL = 8         # 16 bits for the escape's slot, 1 sign, 14 + 15 Exp-Golomb, rounded up
_ONE = np.int64(1)            # numba compiles functions for a plain 1 once more
_LUT_BITS = 8                 # the decoder finds its first slot by the top 8 of 16 bits

LOW, RANGE, POS = 0, 1, 2     # fields of a coder's state; a decoder keeps value in LOW
FAST, SLOW, SEEN = 0, 1, 2    # fields of a context
_FAST_SHIFT, _SLOW_SHIFT, _SEEN_CAP = 4, 7, 127
# Shift after n bits seen: the step 2**-shift follows 1 / (n + 1.5).
_START_SHIFT = np.array([min(max(int(np.log2(n + 1.5) + 0.5), 1), _SLOW_SHIFT) for n in range(_SEEN_CAP + 1)], np.int64)

Bytes = NDArray[np.uint8]
State = NDArray[np.int64]


# ---------------------------------------------------------------- encoder's steps

@njit(cache=True, nogil=True)
def _shift_out(state, buffer):
    """Write bytes until range >= BOTTOM."""
    low, rng, pos = state[LOW], state[RANGE], state[POS]
    while rng < BOTTOM:
        top = low >> 48
        if top > 255:                      # the carry: add one to the number written so far
            k = pos - 1
            while buffer[k] == 255:
                buffer[k] = 0
                k -= 1
            buffer[k] += 1
        buffer[pos] = top & 255
        pos += 1
        low = (low & _LOW_MASK) << 8
        rng <<= 8
    state[LOW], state[RANGE], state[POS] = low, rng, pos


@njit(cache=True, nogil=True)
def put_slot(state, buffer, start, stop):
    """Encode the parts [start, stop) of 65536."""
    r = state[RANGE] >> TOTAL_BITS
    state[LOW] += r * start
    state[RANGE] = r * (stop - start)
    if state[RANGE] < BOTTOM:
        _shift_out(state, buffer)


@njit(cache=True, nogil=True)
def put_raw(state, buffer, value, bits):
    """Encode `bits` (0..16) equally likely bits, most significant first."""
    r = state[RANGE] >> bits
    state[LOW] += r * value
    state[RANGE] = r
    if state[RANGE] < BOTTOM:
        _shift_out(state, buffer)


@njit(cache=True, nogil=True)
def put_bit(state, buffer, contexts, c, bit):
    """Encode a bit in context c and adapt the context."""
    split = (state[RANGE] >> TOTAL_BITS) * ((contexts[c, FAST] + contexts[c, SLOW]) >> 1)
    if bit == 0:
        state[RANGE] = split
    else:
        state[LOW] += split
        state[RANGE] -= split
    adapt(contexts, c, bit)
    if state[RANGE] < BOTTOM:
        _shift_out(state, buffer)


@njit(cache=True, nogil=True)
def adapt(contexts, c, bit):
    """Move context c towards the bit just coded. Estimates stay within 1..65535: a step never passes its target."""
    n = contexts[c, SEEN]
    slow = _START_SHIFT[n]
    fast = min(slow, _FAST_SHIFT)
    if bit == 0:
        contexts[c, FAST] += (TOTAL - contexts[c, FAST]) >> fast
        contexts[c, SLOW] += (TOTAL - contexts[c, SLOW]) >> slow
    else:
        contexts[c, FAST] -= contexts[c, FAST] >> fast
        contexts[c, SLOW] -= contexts[c, SLOW] >> slow
    contexts[c, SEEN] = min(n + 1, _SEEN_CAP)


@njit(cache=True, nogil=True)
def put_symbols(state, buffer, symbols, indexes, cdf, radius):
    """Encode symbols[i] by table indexes[i]; -> N, or the position of the first that cannot be coded."""
    tables = cdf.shape[0]
    for i in range(symbols.shape[0]):
        t = np.int64(indexes[i])
        s = np.int64(symbols[i])
        if t == 0:
            if s != 0:
                return i
            continue
        if t >= tables:
            return i
        reach = np.int64(radius[t])
        slot = s + reach
        if 0 <= slot <= 2 * reach:
            put_slot(state, buffer, np.int64(cdf[t, slot]), np.int64(cdf[t, slot + 1]))
        else:
            if abs(s) > MAX_SYMBOL:
                return i
            slot = 2 * reach + 1
            put_slot(state, buffer, np.int64(cdf[t, slot]), np.int64(cdf[t, slot + 1]))
            put_raw(state, buffer, np.int64(s < 0), _ONE)
            _put_golomb(state, buffer, abs(s) - reach - 1)
    return symbols.shape[0]


@njit(cache=True, nogil=True)
def _put_golomb(state, buffer, n):
    """Exp-Golomb of n >= 0: length of n + 1 in unary (a 0 ends it unless at its longest), then its lower bits."""
    length = np.int64(0)
    while (n + 1) >> (length + 1):
        length += 1
        put_raw(state, buffer, _ONE, _ONE)
    if length < _ESCAPE_BITS:
        put_raw(state, buffer, np.int64(0), _ONE)
    put_raw(state, buffer, (n + 1) - (_ONE << length), length)


@njit(cache=True, nogil=True)
def put_end(state, buffer):
    """Write the last byte; the stream is buffer[:state[POS]]."""
    state[LOW] = (state[LOW] + _LOW_MASK) & ~_LOW_MASK
    state[RANGE] = BOTTOM - 1
    _shift_out(state, buffer)


# ---------------------------------------------------------------- decoder's steps

@njit(cache=True, nogil=True)
def _shift_in(state, data):
    """Read bytes (zeros after the end) until range >= BOTTOM."""
    value, rng, pos = state[LOW], state[RANGE], state[POS]
    while rng < BOTTOM:
        byte = np.int64(0)
        if pos < data.shape[0]:
            byte = np.int64(data[pos])
        pos += 1
        value = (value << 8) | byte
        rng <<= 8
    state[LOW], state[RANGE], state[POS] = value, rng, pos


@njit(cache=True, nogil=True)
def get_raw(state, data, bits):
    """Decode `bits` (0..16) equally likely bits."""
    r = state[RANGE] >> bits
    value = min(state[LOW] // r, (np.int64(1) << bits) - 1)
    state[LOW] = min(state[LOW] - r * value, r - 1)
    state[RANGE] = r
    if state[RANGE] < BOTTOM:
        _shift_in(state, data)
    return value


@njit(cache=True, nogil=True)
def get_bit(state, data, contexts, c):
    """Decode a bit in context c and adapt the context."""
    split = (state[RANGE] >> TOTAL_BITS) * ((contexts[c, FAST] + contexts[c, SLOW]) >> 1)
    if state[LOW] < split:
        bit = np.int64(0)
        state[RANGE] = split
    else:
        bit = np.int64(1)
        state[LOW] -= split
        state[RANGE] -= split
    adapt(contexts, c, bit)
    if state[RANGE] < BOTTOM:
        _shift_in(state, data)
    return bit


@njit(cache=True, nogil=True)
def get_symbols(state, data, symbols, indexes, cdf, radius, lut):
    """Decode symbols[i] by table indexes[i]; -> N, or the position of the first index without a table."""
    tables = cdf.shape[0]
    value, rng, pos = state[LOW], state[RANGE], state[POS]
    end = data.shape[0]
    for i in range(symbols.shape[0]):
        t = np.int64(indexes[i])
        if t == 0:
            symbols[i] = 0
            continue
        if t >= tables:
            return i
        r = rng >> TOTAL_BITS
        part = np.int64(np.uint64(value) // np.uint64(r))
        if part >= TOTAL:                  # only damaged bytes come here
            part = np.int64(TOTAL - 1)
            value = (r << TOTAL_BITS) - 1
        slot = np.int64(lut[t, part >> (TOTAL_BITS - _LUT_BITS)])
        while np.int64(cdf[t, slot + 1]) <= part:
            slot += 1
        start = np.int64(cdf[t, slot])
        value -= r * start
        rng = r * (np.int64(cdf[t, slot + 1]) - start)
        while rng < BOTTOM:
            byte = np.int64(0)
            if pos < end:
                byte = np.int64(data[pos])
            pos += 1
            value = (value << 8) | byte
            rng <<= 8
        reach = np.int64(radius[t])
        s = slot - reach
        if s > reach:
            state[LOW], state[RANGE], state[POS] = value, rng, pos
            negative = get_raw(state, data, _ONE)
            s = reach + 1 + _get_golomb(state, data)
            if s > MAX_SYMBOL:             # again only by damaged bytes
                s = np.int64(MAX_SYMBOL)
            if negative:
                s = -s
            value, rng, pos = state[LOW], state[RANGE], state[POS]
        symbols[i] = s
    state[LOW], state[RANGE], state[POS] = value, rng, pos
    return symbols.shape[0]


@njit(cache=True, nogil=True)
def _get_golomb(state, data):
    length = np.int64(0)
    while length < _ESCAPE_BITS and get_raw(state, data, _ONE):
        length += 1
    return (_ONE << length) + get_raw(state, data, length) - 1


# ---------------------------------------------------------------- what the rest of the codec uses

class Tables:
    """Static tables, checked once.

    cdf: integers [T, L + 1], rows from 0 to 65536; slots 0..2R[t] for the symbols -R[t]..R[t], slot 2R[t] + 1 for the
    escape, each at least 1/65536 wide; the rest of a row stays at 65536. radius: integers [T], 0 <= 2 R[t] <= L - 2.
    Row 0 is never read (index 0 is "skip") but keeps the same form. Raises ValueError naming the first bad table.
    """

    def __init__(self, cdf: NDArray[np.integer], radius: NDArray[np.integer]) -> None:
        self.cdf = np.ascontiguousarray(cdf, np.int32)
        self.radius = np.ascontiguousarray(radius, np.int32)
        if self.cdf.ndim != 2 or self.radius.shape != self.cdf.shape[:1]:
            raise ValueError(f"cdf must be [T, L + 1] and radius [T], got {self.cdf.shape} and {self.radius.shape}")
        for t, (row, reach) in enumerate(zip(self.cdf, self.radius, strict=True)):
            used = 2 * int(reach) + 2
            if reach < 0 or used > row.size - 1:
                raise ValueError(f"table {t}: radius {reach} does not fit into {row.size - 1} slots")
            if row[0] != 0 or (row[used:] != TOTAL).any() or (np.diff(row[: used + 1]) < 1).any():
                raise ValueError(f"table {t}: cdf must rise from 0 to {TOTAL} over its {used} slots and stay there")
        firsts = np.arange(1 << _LUT_BITS) << (TOTAL_BITS - _LUT_BITS)
        # [T, 256] the slot that holds the part first of each 256: from there the decoder walks upwards.
        self.lut = np.stack([np.searchsorted(row, firsts, "right") - 1 for row in self.cdf]).astype(np.uint16)

    @classmethod
    def from_probabilities(cls, pmf: NDArray[np.floating], radius: NDArray[np.integer]) -> Tables:
        """Tables from float probabilities [T, L] in the slot order above (export time only: rounding is not exact).

        Every used slot gets 1/65536 and the rest is shared in proportion, rounded along the cumulative sum."""
        rows = []
        for p, reach in zip(np.asarray(pmf, np.float64), radius, strict=True):
            used = 2 * int(reach) + 2
            mass = np.cumsum(np.maximum(p[:used], 0.0))
            body = np.rint(mass / mass[-1] * (TOTAL - used)).astype(np.int64) + np.arange(1, used + 1)
            rows.append(np.concatenate([[0], body, np.full(p.size - used, TOTAL)]))
        return cls(np.stack(rows), radius)

    def bits(self) -> NDArray[np.float32]:
        """[T, L] cost of each slot in bits, without what follows an escape; infinite for unused slots. Encoder only."""
        with np.errstate(divide="ignore"):
            return (TOTAL_BITS - np.log2(np.diff(self.cdf, axis=1))).astype(np.float32)


class Encoder:
    """Grows its buffer as needed. `state` and `buffer` are for njit functions: reserve() before handing them on."""

    def __init__(self) -> None:
        self.state: State = np.array([0, TOP, 0], np.int64)
        self.buffer: Bytes = np.empty(1 << 12, np.uint8)

    def reserve(self, size: int) -> None:
        """Make room for `size` more bytes (and the last one)."""
        need = int(self.state[POS]) + size + 16
        if need > self.buffer.size:
            grown = np.empty(max(need, 2 * self.buffer.size), np.uint8)
            grown[: self.state[POS]] = self.buffer[: self.state[POS]]
            self.buffer = grown

    def put(self, symbols: NDArray[np.integer], indexes: NDArray[np.integer], tables: Tables) -> None:
        """Encode symbols [N] (any integers, |s| <= 32767) by tables[indexes [N]].

        Raises ValueError naming the first symbol that its table cannot carry; the encoder is then of no more use."""
        symbols = np.ascontiguousarray(symbols, np.int32).reshape(-1)
        indexes = np.ascontiguousarray(indexes, np.uint16).reshape(-1)
        if symbols.size != indexes.size:
            raise ValueError(f"one index for each symbol expected, got {indexes.size} for {symbols.size}")
        self.reserve(symbols.size * _BYTES_PER_SYMBOL)
        done = put_symbols(self.state, self.buffer, symbols, indexes, tables.cdf, tables.radius)
        if done < symbols.size:
            raise ValueError(f"symbol {done} is {symbols[done]}, which table {indexes[done]} cannot carry")

    @property
    def size(self) -> int:
        """Bytes written so far; up to 7 more are still in the state."""
        return int(self.state[POS])

    def finish(self) -> bytes:
        """End the stream; -> its bytes, at least one."""
        self.reserve(1)
        put_end(self.state, self.buffer)
        return self.buffer[: self.state[POS]].tobytes()


class Decoder:
    """Reads what an Encoder wrote. Never raises on bad bytes: look at `overrun` and `finished` at the end."""

    def __init__(self, data: bytes | bytearray | memoryview | Bytes) -> None:
        # A writable copy: numba compiles separately for read-only arrays, and both directions share code.
        self.data: Bytes = np.frombuffer(data, np.uint8).copy()
        head = self.data[:7].tobytes().ljust(7, b"\0")
        self.state: State = np.array([int.from_bytes(head, "big"), TOP, 7], np.int64)

    def get(self, indexes: NDArray[np.integer], tables: Tables) -> NDArray[np.int32]:
        """Decode one symbol for each index; -> int32 of the same shape. ValueError for an index beyond the tables."""
        flat = np.ascontiguousarray(indexes, np.uint16).reshape(-1)
        symbols = np.empty(flat.size, np.int32)
        done = get_symbols(self.state, self.data, symbols, flat, tables.cdf, tables.radius, tables.lut)
        if done < flat.size:
            raise ValueError(f"index {done} is {flat[done]}, but there are {tables.cdf.shape[0]} tables")
        return symbols.reshape(np.shape(indexes))

    @property
    def overrun(self) -> bool:
        """More was decoded than the bytes hold: they are damaged or cut."""
        return int(self.state[POS]) > self.data.size + 6

    @property
    def finished(self) -> bool:
        """Exactly what was encoded has been decoded, as far as the number of bytes tells."""
        return int(self.state[POS]) == self.data.size + 6


def fresh_contexts(probabilities: NDArray[np.floating] | int,
                   confidence: NDArray[np.integer] | int = 0) -> NDArray[np.int32]:
    """Fresh adaptive contexts int32 [C, 3]: C of them at 1/2, or at the given probabilities [C] of a 0.

    confidence: how many bits it (or each) counts as having seen, 0..127; more makes them adapt more slowly at first."""
    p = np.full(probabilities, 0.5) if isinstance(probabilities, int) else np.asarray(probabilities, np.float64)
    fixed = np.clip(np.rint(p * TOTAL), 1, TOTAL - 1).astype(np.int32)
    counts = np.broadcast_to(confidence, fixed.shape).astype(np.int32)
    return np.ascontiguousarray(np.stack([fixed, fixed, counts], axis=1))


def warm() -> None:
    """Compile every kernel into numba's cache."""
    tables = Tables(np.array([[0, TOTAL - 1, TOTAL]] * 2), np.zeros(2, np.int32))
    bits = fresh_contexts(1)
    encoder = Encoder()
    encoder.put(np.array([0, 5]), np.array([1, 1]), tables)
    put_bit(encoder.state, encoder.buffer, bits, 0, 1)
    decoder = Decoder(encoder.finish())
    decoder.get(np.array([1, 1]), tables)
    get_bit(decoder.state, decoder.data, bits, 0)
