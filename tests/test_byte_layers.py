"""Layers in products of 8 bits: the very sums of the layers that they stand for, or not used."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nvc.decoder import side_of
from nvc.network import cpu_reconstruction, fixed_point
from nvc.network.byte_layers import SIGNED, ByteLayer
from nvc.network.layers import Conv
from nvc.network.model import DEFAULT_MODEL, load_model

UNITS = torch.tensor([-9, -8, -9, -10, -7], dtype=torch.int8)       # exponents of five channels


def layer_of(zeros: list[int], kernel: int) -> tuple[ByteLayer, torch.Tensor, torch.Tensor]:
    """A layer of random integers, and its weights and biases as real numbers."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randint(-127, 128, (5, len(zeros), kernel, kernel), generator=generator, dtype=torch.int8)
    bias = torch.randint(-200, 200, (5,), generator=generator, dtype=torch.int32)
    unit = torch.exp2(UNITS.float())
    conv = Conv(len(zeros), 5, kernel)
    conv.frozen = weight.float() * unit[:, None, None, None], bias.float() * unit
    return ByteLayer(conv, weight, UNITS, bias, np.array(zeros)), *conv.frozen


def grid_of(rows: int, columns: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2, rows, columns, channels), np.uint8)


@pytest.mark.parametrize("zero", [0, SIGNED])
@pytest.mark.parametrize("size", [(20, 12), (3, 2), (1, 1)], ids=["wide", "small", "single"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_sums_of_bytes_are_those_of_the_integers_they_stand_for(zero: int, size: tuple[int, int], kernel: int) -> None:
    layer, weight, bias = layer_of([zero] * 6, kernel)
    grid = grid_of(*size, 6)
    x = torch.from_numpy(grid).permute(0, 3, 1, 2).double() - zero
    expected = torch.nn.functional.conv2d(x, weight.double(), bias.double(), padding=kernel // 2)
    assert torch.equal(layer(grid), expected.float().to(torch.bfloat16))


@pytest.mark.parametrize("size", [(14, 20), (5, 4)], ids=["wide", "small"])
def test_a_grid_with_mixed_zeros_brings_its_own_margin(size: tuple[int, int]) -> None:
    zeros = np.array([SIGNED] * 4 + [0] * 2)
    layer, weight, bias = layer_of(zeros.tolist(), 3)
    grid = grid_of(*size, 6)
    for edge in (grid[:, 0], grid[:, -1], grid[:, :, 0], grid[:, :, -1]):
        edge[:] = zeros
    x = torch.from_numpy(grid.astype(np.float64) - zeros).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(x, weight.double(), bias.double())
    assert torch.equal(layer(grid), expected.float().to(torch.bfloat16))


def test_sums_of_single_positions_take_numbers_beyond_a_byte() -> None:
    layer, weight, bias = layer_of([SIGNED] * 6, 3)
    x = torch.randint(-255, 256, (1, 6, 9, 7), generator=torch.Generator().manual_seed(0)).double()
    patches = torch.nn.functional.unfold(x, 3, padding=1)[0].T.reshape(63, 6, 3, 3).permute(0, 2, 3, 1)
    expected = torch.nn.functional.conv2d(x, weight.double(), bias.double(), padding=1)[0].permute(1, 2, 0)
    made = layer.at(patches.float().contiguous().numpy())
    assert torch.equal(made, expected.reshape(63, 5).float().to(torch.bfloat16))


def test_products_that_saturate_are_found_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ops.onednn.qconv2d_pointwise

    def saturating(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        return real(x, *arguments) - (x.amin() == 255).to(torch.bfloat16)       # wrong for the largest bytes only

    monkeypatch.setattr(torch.ops.onednn, "qconv2d_pointwise", saturating)
    layer, _, _ = layer_of([0] * 6, 1)
    assert layer.packed is None


def test_products_of_8_bits_are_left_out_where_they_are_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_point, "faster", lambda layer: False)
    network = fixed_point.FixedNetwork(load_model(DEFAULT_MODEL).weights)
    assert "int8" not in network.kernels.values()


@pytest.mark.parametrize("share", [0.0, 0.002, 0.5], ids=["none", "few", "many"])
def test_predictions_that_err_by_more_than_a_byte_give_the_pictures_of_other_devices(share: float) -> None:
    network, rng = load_model(DEFAULT_MODEL).network, np.random.default_rng(5)
    p = rng.integers(100, 156, (2, 6, 64, 48)).astype(np.uint8)
    d = rng.integers(-30, 31, p.shape).astype(np.int16)
    d[rng.random(p.shape) < share] = 255
    z, side = np.zeros((2, 2, 2, 48), np.int32), side_of(["B", "P"], [30, 60])

    def visit(step: int, mean: NDArray[np.int32], index: NDArray[np.int32],
              local: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.random.default_rng(step).integers(-2, 3, mean.shape).astype(np.int32)

    with torch.inference_mode():
        made, expected = (way(network, side, p, d, z, visit)
                          for way in (cpu_reconstruction.reconstruct, cpu_reconstruction.in_tensors))
    assert np.array_equal(made, expected)
