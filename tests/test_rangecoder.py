"""The range coder against a twin that keeps the whole number without carries, in Python's own integers."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.entropy import range_coder as rc

TABLES = rc.Tables(
    np.array([
        [0, 65535, 65536, 65536, 65536, 65536, 65536, 65536, 65536],   # skip
        [0, 65535, 65536, 65536, 65536, 65536, 65536, 65536, 65536],   # 0 nearly certain
        [0, 100, 65000, 65535, 65536, 65536, 65536, 65536, 65536],     # -1..1
        [0, 1, 2, 65533, 65534, 65535, 65536, 65536, 65536],           # -2..2, all but one slot minimal
        [0, 8192, 16384, 24576, 32768, 40960, 49152, 57344, 65536],    # -3..3, even
    ]),
    np.array([0, 0, 1, 2, 3]),
)


class Twin:
    """The interval [low, low + range) / 256**(7 + shifts): nothing is ever written, so nothing is ever carried."""

    def __init__(self) -> None:
        self.low, self.range, self.shifts = 0, 1 << 56, 0

    def narrow(self, start: int, size: int) -> None:
        self.low, self.range = self.low + start, size
        while self.range < 1 << 48:
            self.low, self.range, self.shifts = self.low << 8, self.range << 8, self.shifts + 1

    def raw(self, value: int, bits: int) -> None:
        r = self.range >> bits
        self.narrow(r * value, r)

    def symbol(self, s: int, t: int) -> None:
        if t == 0:
            return
        reach, row, r = int(TABLES.radius[t]), [int(c) for c in TABLES.cdf[t]], self.range >> 16
        slot = s + reach if abs(s) <= reach else 2 * reach + 1
        self.narrow(r * row[slot], r * (row[slot + 1] - row[slot]))
        if abs(s) > reach:
            self.raw(int(s < 0), 1)
            n = abs(s) - reach
            ones = n.bit_length() - 1
            for _ in range(ones):
                self.raw(1, 1)
            if ones < 14:
                self.raw(0, 1)
            self.raw(n - (1 << ones), ones)

    def bit(self, row: list[int], bit: int) -> None:
        split = (self.range >> 16) * ((row[0] + row[1]) // 2)
        self.narrow(split if bit else 0, self.range - split if bit else split)
        slow = min(max(int(np.log2(row[2] + 1.5) + 0.5), 1), 7)
        for k, shift in ((0, min(slow, 4)), (1, slow)):
            row[k] += -(row[k] >> shift) if bit else (65536 - row[k]) >> shift
        row[2] = min(row[2] + 1, 127)

    def finish(self) -> bytes:
        return (-(-self.low >> 48)).to_bytes(self.shifts + 1, "big")


# One operation: ("symbol", s, t), ("bit", context, b) or ("raw", value, bits).
_symbols = st.integers(0, 4).flatmap(
    lambda t: st.tuples(st.just("symbol"), st.just(0) if t == 0 else
                        st.one_of(st.integers(-4, 4), st.integers(-32767, 32767)), st.just(t)))
_bits = st.tuples(st.just("bit"), st.integers(0, 2), st.integers(0, 1))
_raws = st.integers(0, 16).flatmap(lambda n: st.tuples(st.just("raw"), st.integers(0, (1 << n) - 1), st.just(n)))
operations = st.lists(st.one_of(_symbols, _bits, _raws), max_size=60)


def encode(ops: list[tuple[str, int, int]]) -> tuple[rc.Encoder, np.ndarray]:
    encoder, contexts = rc.Encoder(), rc.fresh_contexts(3)
    for kind, a, b in ops:
        if kind == "symbol":
            encoder.put(np.array([a]), np.array([b]), TABLES)
            continue
        encoder.reserve(4)
        if kind == "bit":
            rc.put_bit(encoder.state, encoder.buffer, contexts, a, b)
        else:
            rc.put_raw(encoder.state, encoder.buffer, a, b)
    return encoder, contexts


def decode(data: bytes, ops: list[tuple[str, int, int]]) -> tuple[list[int], rc.Decoder, np.ndarray]:
    decoder, contexts, out = rc.Decoder(data), rc.fresh_contexts(3), []
    for kind, a, b in ops:
        if kind == "symbol":
            out.append(int(decoder.get(np.array([b]), TABLES)[0]))
        elif kind == "bit":
            out.append(int(rc.get_bit(decoder.state, decoder.data, contexts, a)))
        else:
            out.append(int(rc.get_raw(decoder.state, decoder.data, b)))
    return out, decoder, contexts


def expected(ops: list[tuple[str, int, int]]) -> list[int]:
    return [b if kind == "bit" else a for kind, a, b in ops]


@settings(max_examples=150, deadline=None)
@given(operations)
def test_encoder_agrees_with_its_twin_in_state_and_bytes(ops):
    twin, rows = Twin(), [[32768, 32768, 0] for _ in range(3)]
    for kind, a, b in ops:
        if kind == "symbol":
            twin.symbol(a, b)
        elif kind == "bit":
            twin.bit(rows[a], b)
        else:
            twin.raw(a, b)
    encoder, contexts = encode(ops)
    written = int.from_bytes(encoder.buffer[: encoder.size].tobytes(), "big") << 56
    assert written + int(encoder.state[rc.LOW]) == twin.low
    assert int(encoder.state[rc.RANGE]) == twin.range
    assert contexts.tolist() == rows
    assert encoder.finish() == twin.finish()


@settings(max_examples=150, deadline=None)
@given(operations)
def test_all_kinds_come_back_in_any_order(ops):
    encoder, contexts = encode(ops)
    out, decoder, learnt = decode(encoder.finish(), ops)
    assert out == expected(ops)
    assert learnt.tolist() == contexts.tolist()
    assert decoder.finished
    assert not decoder.overrun


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), operations)
def test_hostile_bytes_decode_to_something_and_keep_the_invariants(data, ops):
    out, decoder, _ = decode(data, ops)
    value, rng = int(decoder.state[rc.LOW]), int(decoder.state[rc.RANGE])
    assert len(out) == len(ops)
    assert 0 <= value < rng
    assert 1 << 48 <= rng <= 1 << 56
    assert all(abs(v) <= 32767 for v, op in zip(out, ops, strict=True) if op[0] == "symbol")


@pytest.mark.parametrize("n", [0, 1, 1000, 100_000])
def test_whole_arrays_come_back(n):
    rng = np.random.default_rng(n)
    indexes = rng.integers(0, 5, n).astype(np.uint8)
    symbols = np.where(indexes == 0, 0, np.rint(rng.laplace(size=n) * 2)).astype(np.int16)
    encoder = rc.Encoder()
    encoder.put(symbols, indexes, TABLES)
    decoder = rc.Decoder(encoder.finish())
    assert np.array_equal(decoder.get(indexes, TABLES), symbols)
    assert decoder.finished


def test_a_long_run_of_ff_bytes_takes_a_carry():
    encoder = rc.Encoder()
    encoder.reserve(2000)
    rc.put_raw(encoder.state, encoder.buffer, 0x7FFF, 16)
    for _ in range(500):
        rc.put_raw(encoder.state, encoder.buffer, 0xFFFF, 16)
    encoder.state[rc.LOW] += encoder.state[rc.RANGE]       # the next number up: every 0xFF rolls over
    assert encoder.finish() == bytes([0x80]) + bytes(1001)


def test_nothing_takes_one_byte():
    assert rc.Encoder().finish() == b"\0"


def test_skipped_and_near_certain_symbols_are_nearly_free():
    encoder = rc.Encoder()
    encoder.put(np.zeros(100_000, np.int16), np.repeat([0, 1], 50_000), TABLES)
    assert len(encoder.finish()) == 1


def test_size_is_within_a_byte_of_the_entropy():
    rng = np.random.default_rng(1)
    symbols = rng.integers(-3, 4, 80_000)
    encoder = rc.Encoder()
    encoder.put(symbols, np.full(80_000, 4), TABLES)
    ideal_bits = float(TABLES.bits()[4, symbols + 3].sum())
    assert len(encoder.finish()) - ideal_bits / 8 < 1.01


def test_context_learns_a_rare_bit():
    encoder, contexts = rc.Encoder(), rc.fresh_contexts(1)
    encoder.reserve(20_000)
    for _ in range(10_000):
        rc.put_bit(encoder.state, encoder.buffer, contexts, 0, 0)
    assert len(encoder.finish()) == 3                       # 0.0016 bit each


def test_context_starts_where_it_is_told():
    assert rc.fresh_contexts(np.array([0.25, 1.0]), 9).tolist() == [[16384, 16384, 9], [65535, 65535, 9]]


def test_a_cut_stream_is_an_overrun():
    symbols = np.arange(200) % 7 - 3
    encoder = rc.Encoder()
    encoder.put(symbols, np.full(200, 4), TABLES)
    data = encoder.finish()
    decoder = rc.Decoder(data[:-1])
    decoder.get(np.full(200, 4), TABLES)
    assert decoder.overrun
    assert not decoder.finished


def test_bytes_left_over_are_not_finished():
    decoder = rc.Decoder(rc.Encoder().finish() + b"\0")
    assert not decoder.finished
    assert not decoder.overrun


@pytest.mark.parametrize(("symbol", "index"), [(32768, 2), (-32768, 2), (1, 0), (0, 5)])
def test_a_symbol_that_its_table_cannot_carry_is_named(symbol, index):
    with pytest.raises(ValueError, match=rf"symbol 1 is {symbol}, which table {index} cannot carry"):
        rc.Encoder().put(np.array([0, symbol]), np.array([1, index]), TABLES)


def test_decoder_names_an_index_without_a_table():
    with pytest.raises(ValueError, match="index 2 is 9, but there are 5 tables"):
        rc.Decoder(b"abc").get(np.array([1, 4, 9]), TABLES)


def test_one_index_for_each_symbol():
    with pytest.raises(ValueError, match="one index for each symbol expected, got 2 for 3"):
        rc.Encoder().put(np.zeros(3, np.int16), np.zeros(2, np.uint8), TABLES)


@pytest.mark.parametrize(("cdf", "radius", "message"), [
    ([[0, 9, 65536]], [1], "table 0: radius 1 does not fit into 2 slots"),
    ([[0, 9, 65536]], [-1], "table 0: radius -1 does not fit into 2 slots"),
    ([[0, 9, 65536], [0, 0, 65536]], [0, 0], "table 1: cdf must rise from 0 to 65536 over its 2 slots"),
    ([[0, 9, 65535]], [0], "table 0: cdf must rise"),
    ([[0, 9, 65536]], [0, 0], r"cdf must be \[T, L \+ 1\] and radius \[T\]"),
])
def test_bad_tables_are_refused(cdf, radius, message):
    with pytest.raises(ValueError, match=message):
        rc.Tables(np.array(cdf), np.array(radius))


def test_tables_from_probabilities_keep_every_slot_alive():
    tables = rc.Tables.from_probabilities(np.array([[1.0, 0.0, 0.0, 0.0], [0.1, 0.7, 0.1, 0.1]]), np.array([0, 1]))
    assert tables.cdf.tolist() == [[0, 65535, 65536, 65536, 65536], [0, 6554, 52428, 58982, 65536]]
