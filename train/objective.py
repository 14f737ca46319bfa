"""Rate and distortion of a batch of pictures, differentiable, through the decoder's own functions.

The symbols are quantised as the encoder does it (nearest, one toward zero, or zero, by D + λR) and the gradient passes
straight through, so what is priced and what is reconstructed are the symbols that a stream would carry.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nvc.analysis import Analysis
from nvc.network import GROUPS, STEPS, Network, Side, clip_, gather, scale_of, step_size

LAMBDA = 0.15                       # λ = 0.15 Δ²: squared error of a pixel against bits of a pixel
THRIFT = (0.10, 0.12, 0.16)         # λ of quantisation in units of Δ², by picture type (a picture that others copy: less)


def laplace_bits(k: Tensor, b: Tensor) -> Tensor:
    """Bits of the integer magnitude k ≥ 0 under a zero-mean Laplace distribution of scale b (steps), sign included."""
    zero = -torch.log2(-torch.expm1(-0.5 / b))
    tail = (k - 0.5) / (b * math.log(2)) + 1.0 - torch.log2(-torch.expm1(-1.0 / b))
    return torch.where(k < 0.5, zero, tail)


def quantise(e: Tensor, b: Tensor, thrift: Tensor) -> Tensor:
    """Symbols nearest to e, one toward zero, or zero: whichever has the least (e - s)² + thrift · bits."""
    a = e.abs()
    k = torch.round(a)
    zero = -torch.log2(-torch.expm1(-0.5 / b))
    slope = 1.0 / (b * math.log(2))
    base = 1.0 - 0.5 * slope - torch.log2(-torch.expm1(-1.0 / b))
    def cost(v: Tensor) -> Tensor:
        return (a - v) ** 2 + thrift * torch.where(v < 0.5, zero, base + v * slope)
    down = (k - 1).clamp_min(0)
    best = torch.where(cost(down) < cost(k), down, k)
    best = torch.where(a * a + thrift * zero < cost(best), torch.zeros_like(best), best)
    return best * torch.sign(e)


class Objective(nn.Module):
    """Both halves of the codec; `forward` gives bits and distortion of each picture of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.analysis = Analysis()

    def forward(self, x: Tensor, p0: Tensor, p1: Tensor, kind: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, p0, p1: planes [B, 6, h, w]; returns latent bits, hyper bits [B], distortion [B] (6:1:1 squared error)."""
        net, side = self.network, Side.of(kind, t)
        intra = (kind == 0).float()[:, None, None, None]
        p = torch.floor((p0 + p1 + 1) * 0.5) * (1 - intra) + 128.0 * intra
        d = (p0 - p1) * (1 - intra)
        y = self.analysis.latents(x, p, d, side, net)
        z = self.analysis.hyper(y, side)
        z = z + (torch.round(z) - z).detach()
        z_bits = laplace_bits(z.abs(), scale_of(net.z_index(side)).expand_as(z)).sum((1, 2, 3))
        context = net.context(z, p, d, side)
        thrift = torch.tensor(THRIFT)[kind][:, None, None, None]
        bits: list[Tensor] = []
        first = [0, *torch.cumsum(torch.tensor(GROUPS), 0).tolist()]

        def visit(step: int, mean: Tensor, index: Tensor) -> Tensor:
            group, parity = STEPS[step]
            e = gather(y[:, first[group]:first[group + 1]], parity) - mean / 8.0
            b = scale_of(index)
            with torch.no_grad():
                s = quantise(e, b, thrift) * (index > 0)
            s = e + (s - e).detach()
            bits.append((laplace_bits(s.abs(), b) * (index > 0)).sum((1, 2, 3)))
            return 8.0 * s + mean

        v8, features = net.walk(context, visit)
        out = net.synthesis(v8, features, p, d, side)
        out = clip_(out, 0, 255)
        out = out + (torch.round(out) - out).detach()
        error = (out - x) ** 2
        distortion = (6 * error[:, :4].mean((1, 2, 3)) + error[:, 4].mean((1, 2)) + error[:, 5].mean((1, 2))) / 8
        return torch.stack(bits).sum(0), z_bits, distortion


def lagrangian(bits: Tensor, distortion: Tensor, t: Tensor, pixels: int) -> Tensor:
    """Bits per pixel plus distortion in bits per pixel."""
    return bits / pixels + distortion / (LAMBDA * step_size(t) ** 2)
