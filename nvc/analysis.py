"""The encoder's own networks: analysis g_a and hyper-analysis h_a. Float; no decoder ever runs them.

Their rectifiers leak: plain ones died in the first hundred steps of training, when the loss is steep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nvc.network import CHANNELS, HYPER, Side, dct_basis, first_joined, step_size


def _conv(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2)


class Analysis(nn.Module):
    """Latents of a picture, in steps: linear core plus a small network; and the hyper-latent."""

    stride = 4              # of latents, in samples of planes

    def __init__(self) -> None:
        super().__init__()
        lapped = torch.zeros(CHANNELS, 6, 8, 8)
        lapped[:, :, 2:6, 2:6] = dct_basis()
        self.core = nn.Parameter(lapped)
        self.gain = nn.Parameter(torch.zeros(3, CHANNELS))              # log gain of a coefficient, by type
        self.gain_slope = nn.Parameter(torch.zeros(3, CHANNELS))        # its change by octave of Δ
        self.ga = nn.Sequential(nn.Conv2d(18 + 3, 64, 4, 4), nn.LeakyReLU(0.1), _conv(64, 96), nn.LeakyReLU(0.1),
                                _conv(96, 96), nn.LeakyReLU(0.1), _conv(96, CHANNELS))
        self.ha = nn.Sequential(_conv(2 * CHANNELS + 3, 96, 1), nn.LeakyReLU(0.1), _conv(96, 96, 5, 2),
                                nn.LeakyReLU(0.1), _conv(96, HYPER, 5, 4))
        *_, weight, bias = self.ga.parameters()
        nn.init.zeros_(bias)
        weight.data *= 0.05

    def inputs(self, x: Tensor, p: Tensor, d: Tensor, side: Side) -> Tensor:
        """What the small network sees of a picture, its prediction and the predictions' difference: [B, 21, h, w],
        fractions that bfloat16 holds exactly."""
        plane = (side.planes / 32.0).expand(x.shape[0], 3, *x.shape[2:])
        return torch.cat([(x - p) / 32.0, (p - 128.0) / 64.0, d / 32.0, plane], 1)

    def latents(self, residual: Tensor, inputs: Tensor, side: Side) -> Tensor:
        """[B, CHANNELS, H, W] in steps (real-valued), group 0 as bands: what `walk` quantises. residual: picture minus
        prediction, [B, 6, h, w]."""
        with torch.autocast(residual.device.type, enabled=False):       # high rates need more than bfloat16's bits
            border = ((self.core.shape[-1] - self.stride) // 2,) * 4
            linear = F.conv2d(F.pad(residual, border, mode="reflect"), self.core, stride=self.stride)
        extra = self.ga(inputs).float() * 16.0
        octave = (side.t / 16.0 - 3.5)[:, None]
        log = self.gain[side.kind] - self.gain_slope[side.kind] * octave
        scale = torch.exp(log) / step_size(side.t)[:, None]
        return first_joined((linear + extra) * scale[:, :, None, None])

    def hyper(self, y: Tensor, side: Side) -> Tensor:
        """Hyper-latent before rounding, [B, HYPER, ⌈H/8⌉, ⌈W/8⌉]."""
        y = first_joined(y)
        log = torch.log1p(y.abs()) * 0.5
        plane = (side.planes / 32.0).expand(y.shape[0], 3, *y.shape[2:])
        return self.ha(torch.cat([log * torch.sign(y), log, plane], 1)).float() * 4.0
