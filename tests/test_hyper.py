"""The hyper-latent: its choice, where symbols and positions have to be worth their bits, and its coded form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coding.interface import Settings
from nvc.decoder import side_of
from nvc.encoder import encode
from nvc.entropy import range_coder
from nvc.network import hyper_latent
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.network.network import HYPER, TYPES

TABLES = load_model(DEFAULT_MODEL).network.tables


def index_of(kind: str, rows: int, columns: int) -> NDArray[np.int32]:
    """Tables of one picture of so many positions, at step 40."""
    return hyper_latent.index_of(load_model(DEFAULT_MODEL).network, side_of([kind], [40]), 64 * rows, 64 * columns)[0]


def coded(z: NDArray[np.int32], index: NDArray[np.int32], kind: str) -> bytes:
    coder = range_coder.Encoder()
    hyper_latent.write(coder, z, index, TYPES[kind], TABLES)
    return coder.finish()


@pytest.mark.parametrize(("wanted", "symbol"), [(0.52, 0), (-0.52, 0), (3.0, 3), (-3.0, -3), (1000.0, 127)])
def test_just_over_a_half_is_not_worth_a_symbol(monkeypatch: pytest.MonkeyPatch, wanted: float, symbol: int) -> None:
    """The nearest integer saves a twenty-fifth of a step's square, and costs over 0.8 bits more than zero."""
    encoder = encode.Encoder(load_model(DEFAULT_MODEL), Settings(), 40.0)
    monkeypatch.setattr(encoder.analysis, "hyper", lambda y, side: torch.full((1, HYPER, 1, 1), wanted))
    x = np.full((1, 6, 32, 32), 128, np.uint8)
    _, z = encoder.analyse(x, x, side_of(["B"], [40]))
    told = index_of("B", 1, 1)[0, 0] > 0                # tables of index 0 code nothing
    assert np.unique(z[0, 0, 0, told]).tolist() == [symbol]
    assert not z[0, 0, 0, ~told].any()


@pytest.mark.parametrize(("full", "kept"), [(1, 0), (4, 4)])
def test_a_position_is_empty_unless_its_symbols_together_are_worth_it(full: int, kept: int) -> None:
    """A 1 wanted as 0.8 saves 12 bits' worth of error, costs 3; zeros beside it cost 0.47 each, to say so costs 2."""
    wanted = torch.zeros(1, HYPER, 1, 1)
    wanted[:, :full] = 0.8
    z = hyper_latent.choose(wanted, torch.full((1, HYPER, 1, 1), 15.0))
    assert int(z.sum()) == kept


def test_what_has_no_table_is_not_coded() -> None:
    assert not hyper_latent.choose(torch.full((1, HYPER, 1, 1), 9.0), torch.zeros(1, HYPER, 1, 1)).any()


def test_a_b_picture_without_hyper_latent_costs_a_byte_at_50_positions() -> None:
    """Symbol by symbol it were dozens."""
    index = index_of("B", 5, 10)
    nothing = np.zeros(index.shape, np.int32)
    plain = range_coder.Encoder()
    plain.put(nothing, index, TABLES)
    assert len(coded(nothing, index, "B")) == 1
    assert len(plain.finish()) > 12


@given(st.sampled_from("IPB"), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_what_was_written_is_read(kind: str, rows: int, columns: int, seed: int) -> None:
    r = np.random.default_rng(seed)
    index = index_of(kind, rows, columns)
    z = r.integers(-3, 4, index.shape) * (r.random(index.shape) < 0.2) * (r.random((rows, columns, 1)) < r.random())
    z = (z * (index > 0)).astype(np.int32)
    read = hyper_latent.read(range_coder.Decoder(coded(z, index, kind)), index, TYPES[kind], TABLES)
    assert np.array_equal(read, z)


@given(st.binary(max_size=60))
def test_any_bytes_give_symbols(data: bytes) -> None:
    index = index_of("P", 2, 3)
    read = hyper_latent.read(range_coder.Decoder(data), index, TYPES["P"], TABLES)
    assert read.shape == (2, 3, HYPER)
