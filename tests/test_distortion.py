"""What refinement descends: MS-SSIM with a gradient, and costs in bits as steep as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from measures.ssim import ssim_and_ms_ssim
from nvc.encoder.encode import lambda_scale_of
from nvc.encoder.quantisation.differentiable import DifferentiableNetwork
from nvc.encoder.quantisation.distortion import Distortion, Squared, Structural
from nvc.encoder.quantisation.similarity import Similarity
from nvc.network.model import load_model
from nvc.network.network import CHANNELS, Side

SIDE = Side.of(torch.tensor([0]), torch.tensor([40.0]))


def picture(rows: int, columns: int, seed: int = 1) -> Tensor:
    """A busy left half and a smooth right half, [1, 1, rows, columns], whole numbers."""
    rng = np.random.default_rng(seed)
    wave = 120 + 10 * np.sin(np.arange(columns) / 9)[None, :] * np.cos(np.arange(rows) / 7)[:, None]
    wave[:, :columns // 2] += rng.normal(0, 30, (rows, columns // 2))
    return torch.from_numpy(wave.clip(0, 255).round())[None, None].float()


def noisy(x: Tensor, sigma: float, seed: int = 2) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + sigma * noise).clamp(0, 255).round()


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    return x[0, 0].to(torch.uint8).numpy()


def luma_planes(y: Tensor) -> Tensor:
    """Planes [1, 6, h, w] of that luma and grey chroma."""
    phases = torch.nn.functional.pixel_unshuffle(y, 2)
    return torch.cat([phases, torch.full_like(phases[:, :2], 128.0)], 1)


@pytest.mark.parametrize("sigma", [2.0, 8.0, 25.0])
def test_what_is_lost_is_ms_ssim_but_for_the_window(sigma: float) -> None:
    x = picture(176, 208)
    made = noisy(x, sigma)
    expected = ssim_and_ms_ssim(as_bytes(x), as_bytes(made))[1]
    assert expected is not None
    lost = Similarity(x, torch.ones_like(x)).lost(made).item()
    assert lost == pytest.approx(-math.log(expected), rel=0.2)


def test_nothing_is_lost_of_the_source_itself() -> None:
    x = picture(48, 64)
    assert Similarity(x, torch.ones_like(x)).lost(x).item() == pytest.approx(0.0, abs=1e-6)


def test_errors_count_more_where_the_picture_is_smooth() -> None:
    x = picture(96, 128)
    off = torch.zeros_like(x)
    off[..., ::2, 8:56:2] = 6.0         # in the busy half; mirrored, in the smooth one
    similarity = Similarity(x, torch.ones_like(x))
    assert similarity.lost(x + off.flip(3)) > 2 * similarity.lost(x + off)


def test_errors_count_by_what_their_position_is_worth() -> None:
    x = picture(96, 128)
    importance = torch.ones_like(x)
    importance[..., :64] = 3.0
    made = x.clone()
    made[..., :48] = noisy(x, 6.0)[..., :48]
    assert Similarity(x, importance).lost(made) > 1.3 * Similarity(x, torch.ones_like(x)).lost(made)


def test_a_picture_smaller_than_a_window_of_the_second_scale_has_one_scale() -> None:
    x = picture(8, 8)
    similarity = Similarity(x, torch.ones_like(x))
    assert len(similarity.scales) == 1
    assert similarity.lost(noisy(x, 5.0)) > 0


def distortion_of(kind: type[Squared] | type[Structural], x: Tensor, importance: float = 1.0
                  ) -> tuple[DifferentiableNetwork, Distortion]:
    network = DifferentiableNetwork(load_model("nvc-1-msssim").weights)
    rows, columns = x.shape[2] // 4, x.shape[3] // 4
    return network, kind(network, SIDE, x, torch.zeros(1, 1, rows, columns), lambda_scale_of("I"),
                         np.full((rows, columns), importance, np.float32))


@pytest.mark.parametrize("kind", [Squared, Structural])
def test_random_steps_cost_what_the_curvature_says(kind: type[Squared] | type[Structural]) -> None:
    x = luma_planes(picture(176, 208))
    network, distortion = distortion_of(kind, x)
    moved = torch.randint(0, 2, (1, CHANNELS, 22, 26), generator=torch.Generator().manual_seed(9)).float() - 0.5
    made = x + network.added(8.0 * moved, SIDE, torch.zeros(1, 1, 22, 26))
    expected = 0.5 * (distortion.curvature * moved**2).sum()
    assert distortion.bits(made).item() == pytest.approx(expected.item(), rel=0.2)


@pytest.mark.parametrize("kind", [Squared, Structural])
def test_twice_the_worth_costs_twice_the_bits(kind: type[Squared] | type[Structural]) -> None:
    x = luma_planes(picture(64, 64))
    made = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    once, twice = (distortion_of(kind, x, importance)[1].bits(made).item() for importance in (1.0, 2.0))
    assert twice == pytest.approx(2 * once, rel=1e-3)


def test_weights_for_ms_ssim_lose_less_of_it_where_structure_counts() -> None:
    x = luma_planes(picture(96, 128))
    _, squared = distortion_of(Squared, x)
    _, structural = distortion_of(Structural, x)
    busy, differentiable = torch.zeros_like(x), torch.zeros_like(x)
    busy[:, :4, ::2, 4:28] = 4.0
    differentiable[:, :4, ::2, 36:60] = 4.0
    assert squared.bits(x + busy).item() == pytest.approx(squared.bits(x + differentiable).item(), rel=1e-3)
    assert structural.bits(x + differentiable) > 1.5 * structural.bits(x + busy)
    assert structural.curvature[..., 8:].mean() > 1.5 * structural.curvature[..., :8].mean()


def test_what_is_flat_by_chance_is_steep_all_the_same() -> None:
    x = luma_planes(torch.full((1, 1, 64, 64), 128.0))
    _, structural = distortion_of(Structural, x)
    assert (structural.curvature > 0).all()
