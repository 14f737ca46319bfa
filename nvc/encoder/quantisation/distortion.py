"""What a picture's errors cost in bits, with a gradient, and how steep that cost is: what refinement descends.

The price is the greedy choice's own (nvc/encoder/quantisation/quantise.py): what it gives for a bit, in squares of a
step. No decoder runs this.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nvc.encoder.quantisation.differentiable import DifferentiableNetwork
from nvc.encoder.quantisation.similarity import Similarity
from nvc.network.network import Side

STRUCTURE = 0.5         # share of luma's cost that goes by MS-SSIM where weights are for that
PROBES = 2              # of how steep it is
LEAST = 0.25            # of the mean, that it is taken for: what is flat by chance is not


class Distortion(Protocol):
    """Of pictures made, from one source. curvature [1, 96, H, W]: second derivative of its bits by latents, in steps of
    their positions."""

    curvature: Tensor

    def bits(self, out: Tensor) -> Tensor:
        """Cost of a picture made, planes [1, 6, h, w]."""


class Squared:
    """Squared error, uniform or weighted by importance.

    x: planes of the source [1, 6, h, w]; local [1, 1, H, W]: see `Network.local_step`; lambda_scale [96]: λ of the
    greedy choice, in Δ² of each channel; importance [H, W]: of positions' errors."""

    def __init__(self, network: DifferentiableNetwork, side: Side, x: Tensor, local: Tensor, lambda_scale: NDArray,
                 importance: NDArray) -> None:
        self.x = x
        # Squared error that one step of the picture makes, [1, 96, 1, 1].
        power = (8.0 * network.gains(side)) ** 2 * network.basis.square().sum((1, 2, 3))[None, :, None, None]
        price = torch.from_numpy(lambda_scale).to(power)[None, :, None, None]
        luma = ~network.of_chroma
        # Chroma's errors weigh as much more as its lambda_scale is less.
        weight = (price[:, luma].log().mean() - price[:, network.of_chroma].log().mean()).exp().item()
        planes = torch.tensor([1.0] * 4 + [weight] * 2).to(power)[None, :, None, None]
        count = torch.from_numpy(importance).to(power)[None, None]
        self.a_bit = math.exp((price * power)[:, luma].log().mean().item())     # squared error that equals a bit
        # Where a position has a finer step than the picture, its errors weigh more: what the step was chosen for.
        self.weights = planes * F.interpolate(count * torch.exp2(local / -4.0), scale_factor=4)
        self.curvature = 2.0 * (power * torch.where(network.of_chroma, weight, 1.0)[None, :, None, None]) * count
        self.curvature = self.curvature / self.a_bit

    def bits(self, out: Tensor) -> Tensor:
        return ((out - self.x) ** 2 * self.weights).sum() / self.a_bit


class Structural:
    """Luma's squared error and what it loses of MS-SSIM, by halves; chroma's squared error. As `Squared`.

    Squared error alone leaves out what the measure is; MS-SSIM alone makes pictures that are worse to predict from."""

    def __init__(self, network: DifferentiableNetwork, side: Side, x: Tensor, local: Tensor, lambda_scale: NDArray,
                 importance: NDArray) -> None:
        self.squared = Squared(network, side, x, local, lambda_scale, importance)
        self.squared.weights[:, :4] *= 1.0 - STRUCTURE
        luma = ~network.of_chroma
        count = torch.from_numpy(importance).to(x)[None, None]
        self.similarity = Similarity(_luma(x), F.interpolate(count, scale_factor=8))
        steep = self._steepness(network, side, local)[:, luma]
        # In all as steep as the greedy choice takes it: a step costs the same wherever it is, importance aside.
        price = torch.from_numpy(lambda_scale).to(x)[None, luma, None, None]
        self.scale = STRUCTURE * (2.0 * count / price).sum() / steep.sum()
        self.curvature = self.squared.curvature.clone()
        self.curvature[:, luma] = (1.0 - STRUCTURE) * self.curvature[:, luma] + self.scale * steep

    def bits(self, out: Tensor) -> Tensor:
        return self.scale * self.similarity.lost(_luma(out)) + self.squared.bits(out)

    def _steepness(self, network: DifferentiableNetwork, side: Side, local: Tensor) -> Tensor:
        """Second derivative of what is lost by each latent, [1, 96, H, W]: what random signs give (Hutchinson 1989),
        smoothed, as a product of positions' and channels'."""
        height, width = local.shape[2:]
        total = torch.zeros(1, len(network.of_chroma), height, width, device=local.device)
        for seed in range(PROBES):
            signs = torch.randint(0, 2, total.shape, generator=torch.Generator().manual_seed(seed)).to(total) - 0.5
            with torch.enable_grad():
                moved = signs.clone().requires_grad_()
                lost = self.similarity.lost(_luma(self.squared.x + network.added(8.0 * moved, side, local)))
                total += torch.autograd.grad(lost, moved)[0] / signs
        total[:, network.of_chroma] = 0.0
        own = F.avg_pool2d(total.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        own = own.clamp_min(LEAST * own.mean().item())
        channel = (total / own).mean((2, 3), keepdim=True)
        return own * channel.clamp_min(LEAST * channel.mean().item())


def _luma(planes: Tensor) -> Tensor:
    """[1, 1, 2h, 2w] of planes [1, 6, h, w]."""
    return F.pixel_shuffle(planes[:, :4], 2)
