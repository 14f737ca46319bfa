"""Other supports of the transform: bases are orthonormal."""

from __future__ import annotations

import pytest
import torch

from train.supports import wide_basis


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
