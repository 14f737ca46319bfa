"""Other supports of the transform: bases are orthonormal, joined positions come apart again."""

from __future__ import annotations

import pytest
import torch

from train.supports import bands, join, wide_basis


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_wide_basis_is_orthonormal_and_begins_with_the_mean(hybrid: bool) -> None:
    basis = wide_basis(hybrid)
    assert basis.shape == (384, 6, 8, 8)
    rows = basis.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(384), atol=1e-6)
    assert torch.allclose(basis[0, :4], torch.full((4, 8, 8), 1 / 16), atol=1e-6)


def test_the_hybrid_basis_has_high_frequencies_of_one_block_only() -> None:
    last = wide_basis(True)[-1].abs().amax(0) > 1e-6
    assert int(last.sum()) == 16        # of 64 half-size samples


def test_joining_twice_gives_what_was() -> None:
    x = torch.randn(2, 4, 6, 8)
    assert torch.allclose(join(join(x)), x, atol=1e-5)


def test_joining_puts_twice_the_mean_of_four_positions_first() -> None:
    joined = join(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    assert joined.tolist() == [[[[6.0, -2.0], [-3.0, 1.0]]]]


def test_bands_are_the_four_places_of_each_pair_of_rows_and_columns() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert [band.sum().item() for band in bands(x)] == [1.0, 2.0, 3.0, 6.0]
    assert torch.equal(sum(bands(x), torch.zeros(())), x)
