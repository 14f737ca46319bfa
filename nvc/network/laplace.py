"""Cost in bits of integers under zero-mean Laplace distributions: what training and refinement price symbols by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nvc.network.network import scale_of

LOG2E = 1.0 / math.log(2.0)


@dataclass
class Laplace:
    """Of scale b steps (sign included): `zero` bits of 0, `base + |s|·slope` of any other. Tensors of one shape."""

    zero: Tensor
    base: Tensor
    slope: Tensor

    @staticmethod
    def of(index: Tensor) -> Laplace:
        """From scale indices. With e = exp(-1/2b): P(0) = 1 - e, P(±k) = ½ e^(2k-1) (1 - e²)."""
        inverse = 1.0 / scale_of(index)
        e = torch.exp(-0.5 * inverse)
        zero = -torch.log(1.0 - e) * LOG2E
        slope = inverse * LOG2E
        return Laplace(zero, 1.0 - 0.5 * slope + zero - torch.log(1.0 + e) * LOG2E, slope)

    def bits(self, k: Tensor) -> Tensor:
        """Bits of magnitudes k ≥ 0."""
        return torch.where(k < 0.5, self.zero, self.base + k * self.slope)

    def line(self, k: Tensor) -> Tensor:
        """The same of magnitudes that need not be whole, with a slope everywhere."""
        return torch.where(k < 1, self.zero + k * (self.base + self.slope - self.zero), self.base + k * self.slope)

    def quantise(self, e: Tensor, lambda_scale: Tensor) -> Tensor:
        """Symbols nearest to e, one toward zero, or zero: whichever has the least (e - s)² + lambda_scale · bits."""
        a = e.abs()
        k = torch.round(a)
        down = (k - 1).clamp_min(0)
        cost_k = (a - k) ** 2 + lambda_scale * self.bits(k)
        cost_down = (a - down) ** 2 + lambda_scale * self.bits(down)
        best = torch.where(cost_down < cost_k, down, k)
        best = torch.where(a * a + lambda_scale * self.zero < torch.minimum(cost_k, cost_down), 0.0, best)
        return best * torch.sign(e)
