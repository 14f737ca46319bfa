"""Rate and distortion of a batch of pictures, differentiable, through the decoder's own functions.

The symbols are quantised as the encoder does it (nearest, one toward zero, or zero, by D + λR), so what is priced and
what is reconstructed are the symbols that a stream would carry. The gradient passes straight through those that are not
zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from torch import Tensor, nn

from nvc.encoder.analysis import Analysis
from nvc.encoder.encode import LAMBDA_FALL, T_MIDDLE, lambda_scale_of
from nvc.network import hyper_latent
from nvc.network.laplace import Laplace
from nvc.network.layers import clip_
from nvc.network.network import FIRST, STEPS, Network, Side, first_joined, gather, step_size

LAMBDA = 0.15                       # λ = 0.15 Δ² · 2^(a + b · octaves of Δ): squared error against bits, of a pixel
# a, b of I, P and B: the slope dD/dR at which the encoder's choice of symbols really works, with its lambda_scale and
# the learned sizes of steps, measured by lambda_scale 1.3 times as large. An objective with another slope would have
# the networks work against that choice.
SLOPE = ((1.52, -0.315), (1.05, -0.24), (0.78, -0.133))
# How much coarser the steps of I, P and B pictures usually are than the step that the encoder was asked for, by their
# level and by what copies them: its lambda_scale follows the latter.
BEHIND = (8.0, 19.0, 36.0)
# Weight of each chroma plane's mean squared error where that of luma is 6, by measure. PSNR-YUV is a mean of
# logarithms, whose slope is the inverse of the error, and chroma's errors are 5 to 12 dB smaller; with 2.5 chroma lost.
CHROMA = {"psnr": 3.0, "ms_ssim": 2.5}
# Squared error that one unit of 1 - MS-SSIM stands for: the geometric mean over pictures of all types that the weights
# for PSNR make, at every step the same, so that both objectives lead to like rates.
MS_SSIM = 950.0

HYPER_SAID_BITS = 0.5               # about what it costs to say whether a position of the hyper-latent is empty


class Objective(nn.Module):
    """Both halves of the codec; `forward` gives bits and distortion of each picture of a batch."""

    def __init__(self, measure: str = "psnr", context: int | None = None) -> None:
        """measure: what distortion is, "psnr" or "ms_ssim" (of luma; chroma keeps its squared error); context: see
        `Network`."""
        super().__init__()
        self.measure = measure
        self.network = Network(context)
        self.analysis = Analysis()
        lambda_scale = torch.stack([torch.from_numpy(lambda_scale_of(kind)) for kind in "IPB"])
        self.register_buffer("lambda_scale", lambda_scale, persistent=False)

    def forward(self, x: Tensor, p0: Tensor, p1: Tensor, kind: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, p0, p1: planes [B, 6, h, w]; returns latent bits, hyper bits [B], distortion [B] (squared error,
        luma 6, each chroma plane CHROMA, over 8)."""
        net, side = self.network, Side.of(kind, t)
        intra = (kind == 0).float()[:, None, None, None]
        p = torch.floor((p0 + p1 + 1) * 0.5) * (1 - intra) + 128.0 * intra
        d = (p0 - p1) * (1 - intra)
        y = self.analysis.transform(x - p, side)
        z = self.analysis.hyper(y, side)
        y = first_joined(y)
        z_index = net.z_index(side)
        z_prior = Laplace.of(z_index)
        with torch.no_grad():
            chosen = hyper_latent.choose(z, z_index)
            full = chosen.any(1, keepdim=True)
        z_bits = (z_prior.bits(chosen.abs()) * full * (z_index > 0) + _slope(z_prior, z)).sum((1, 2, 3))
        z_bits = z_bits + HYPER_SAID_BITS * full[0].numel()
        z = z + (chosen - z).detach()
        context = net.context(z, p, d, side)
        local = net.local_step(context)
        y = y * torch.exp2(local / -8.0)
        lambda_scale = (lean(kind, t)[:, None] * self.lambda_scale[kind])[:, :, None, None]
        bits: list[Tensor] = []

        def visit(step: int, mean: Tensor, index: Tensor) -> Tensor:
            group, parity = STEPS[step]
            e = gather(y[:, FIRST[group]:FIRST[group + 1]], parity) - mean / 8.0
            prior = Laplace.of(index)
            with torch.no_grad():
                s = prior.quantise(e, lambda_scale[:, FIRST[group]:FIRST[group + 1]]) * (index > 0)
            # The choice between zero and a symbol is made where both cost the same, so a zero stays a zero for small
            # changes of y: no gradient there, and what is reconstructed is the mean, which learns from it.
            s = torch.where(s == 0, 0.0, e + (s - e).detach())
            bits.append((prior.bits(s.abs()) * (index > 0)).sum((1, 2, 3)))
            return 8.0 * s + mean

        v8, features = net.walk(context, visit)
        out = net.synthesis(v8, features, p, d, side, local)
        out = clip_(out, 0, 255)
        out = out + (torch.round(out) - out).detach()
        return torch.stack(bits).sum(0), z_bits, self.distortion(out, x)

    def distortion(self, out: Tensor, x: Tensor) -> Tensor:
        """Distortion of each picture [B], as squared error."""
        error = (out - x) ** 2
        luma, chroma = error[:, :4].mean((1, 2, 3)), error[:, 4:].mean((1, 2, 3))
        if self.measure == "ms_ssim":
            with torch.autocast(x.device.type, enabled=False):
                pair = [F.pixel_shuffle(v[:, :4].float(), 2) for v in (out, x)]
                lost = 1.0 - ms_ssim(*pair, data_range=255, size_average=False)
            luma = MS_SSIM * lost
        return (6 * luma + 2 * CHROMA[self.measure] * chroma) / 8


def lean(kind: Tensor, t: Tensor) -> Tensor:
    """Share [B] of its lambda_scale that the encoder keeps in pictures with step index t: less where steps are fine."""
    asked = t - t.new_tensor(BEHIND)[kind]
    return 1.0 - LAMBDA_FALL * (1.0 - asked / T_MIDDLE).clamp(0.0, 1.0)


def _slope(prior: Laplace, z: Tensor) -> Tensor:
    """Zero, whose gradient is that of z's bits along the line between zero and one. Hyper-latents that are zero keep a
    gradient, unlike latents: with none, one after another goes to zero and none comes back."""
    line = Laplace(prior.zero.detach(), prior.base.detach(), prior.slope.detach()).line(z.abs())
    return line - line.detach()


def lagrangian(bits: Tensor, distortion: Tensor, kind: Tensor, t: Tensor, pixels: int) -> Tensor:
    """Bits per pixel plus distortion in bits per pixel."""
    slope = t.new_tensor(SLOPE)[kind]
    octaves = slope[:, 0] + slope[:, 1] * t / 16.0
    return bits / pixels + distortion / (LAMBDA * lean(kind, t) * torch.exp2(octaves) * step_size(t) ** 2)
