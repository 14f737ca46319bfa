"""Layers of integers: rounding that passes gradients, and the convolution made of it.

Every number that a decoder's networks compute is an integer (times a fixed power of two), so the order in which a
kernel adds products cannot change a result:

  weights      int8 · 2^s, one s per output channel                    (s.t. |w| ≤ 127 · 2^s)
  activations  integers 0 … 255 (hidden), -255 … 255 (inputs); one unit stands for 1/32 of a trained float unit
  product sums exact in float32 while Σ|w|·max|a| + |b| stays under 2^24 units of 2^s (proved by `fixed.prove`)
  requantise   the sum rounded to bfloat16 (8 significant bits, ties to even), then to an integer (ties to even),
               then clipped. bfloat16 is how matrix units hand a sum back, so they may be used without a second
               definition; where they are missing, float32 followed by the same rounding gives the same integer.

Training runs the very same functions with weights rounded on the fly and gradients passed straight through (Bengio
et al. 2013, arXiv:1308.3432), so there is no second, "quantised" network that could differ.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g


class _Clip(torch.autograd.Function):
    """Clip to [lo, hi]; the gradient passes inside, and outside where it leads back in."""

    @staticmethod
    def forward(ctx, x: Tensor, lo: float, hi: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.lo, ctx.hi = lo, hi
        return x.clamp(lo, hi)

    @staticmethod
    def backward(ctx, g: Tensor):
        (x,) = ctx.saved_tensors
        keep = ((x >= ctx.lo) | (g < 0)) & ((x <= ctx.hi) | (g > 0))
        return g * keep, None, None


class _Act(torch.autograd.Function):
    """Round and clip to 0 … 255; the gradient passes inside, and above where it leads back down."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.round(x).clamp(0, 255)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # In fused kernels: a mask takes five times as long. x is whole near 255, so above 254 is 255 or more.
        within = torch.ops.aten.hardtanh_backward(g, x, 0.0, 255.0)
        return within + torch.ops.aten.threshold_backward(g.clamp_min(0), x, 254.0)


def round_(x: Tensor) -> Tensor:
    return _Round.apply(x) if x.requires_grad else torch.round(x)


def clip_(x: Tensor, lo: float, hi: float) -> Tensor:
    return _Clip.apply(x, lo, hi) if x.requires_grad else x.clamp(lo, hi)


def act(x: Tensor) -> Tensor:
    """Requantise product sums to activations: integers 0 … 255 (the clip is the ReLU)."""
    return _Act.apply(x) if x.requires_grad else torch.round(x).clamp(0, 255)


class Conv(nn.Module):
    """Convolution with int8·2^s weights, 'same' padding; returns product sums rounded to bfloat16.

    `frozen` holds (weight, bias) as exact values in the dtype of the kernel in use (see nvc/network/fixed_point.py);
    until then the trained float weights are rounded at every call.
    """

    unit: Tensor

    def __init__(self, cin: int, cout: int, kernel: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.kernel = kernel
        std = gain * math.sqrt(2.0 / (cin * kernel * kernel))
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) * std)
        self.bias = nn.Parameter(torch.zeros(cout))
        self.register_buffer("unit", torch.ones(cout), persistent=False)
        self.frozen: tuple[Tensor, Tensor] | None = None
        self.measure()

    @torch.no_grad()
    def measure(self) -> None:
        """Set 2^s of each output channel from its largest weight; after a change of weights, before `quantised`."""
        peak = self.weight.abs().amax((1, 2, 3)).clamp_min(1e-8)
        self.unit.copy_(torch.exp2(torch.ceil(torch.log2(peak / 127.0))))

    def quantised(self) -> tuple[Tensor, Tensor]:
        """Weights and biases as the decoder has them: int8·2^s, and bias a multiple of 2^s with 8 significant bits."""
        unit = self.unit[:, None, None, None]
        w = round_(self.weight / unit).clamp(-127, 127) * unit
        b = round_(self.bias / self.unit) * self.unit
        b = b + (b.detach().bfloat16().float() - b.detach())
        return w, b

    def forward(self, x: Tensor) -> Tensor:
        pad = self.kernel // 2
        if self.frozen is None:
            w, b = self.quantised()
            return F.conv2d(x.to(w.dtype), w, b, padding=pad).to(torch.bfloat16)
        w, b = self.frozen
        return F.conv2d(x.to(w.dtype), w, b, padding=pad).to(torch.bfloat16)


def exact_conv(x: Tensor, weight: Tensor, bias: Tensor | None, pad: int, stride: int = 1) -> Tensor:
    """Reference for the self-test: float64 product sums of patches, rounded to bfloat16 once. Returns float32."""
    cout, k = weight.shape[0], weight.shape[2]
    patches = F.unfold(x.double(), k, padding=pad, stride=stride)        # [1, cin·k², positions]
    out = weight.double().reshape(cout, -1) @ patches[0]
    if bias is not None:
        out = out + bias.double()[:, None]
    h = (x.shape[2] + 2 * pad - k) // stride + 1
    # Exact: fewer than 24 significant bits, so float64 -> float32 does not round and bfloat16 rounds once.
    return out.float().to(torch.bfloat16).float().reshape(1, cout, h, -1)
