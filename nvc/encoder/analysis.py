"""The encoder's own transform, which is linear (docs/decisions, 14), and hyper-analysis h_a. Float; no decoder runs
them.

Rectifiers leak: plain ones died in the first hundred steps of training, when the loss is steep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nvc.network.network import CHANNELS, HYPER, Side, dct_basis, step_size


def _conv(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2)


class Analysis(nn.Module):
    """Latents of a picture, in steps, by the linear core; and the hyper-latent, by a small network."""

    stride = 4              # of latents, in samples of planes

    def __init__(self) -> None:
        super().__init__()
        lapped = torch.zeros(CHANNELS, 6, 8, 8)
        lapped[:, :, 2:6, 2:6] = dct_basis()
        self.core = nn.Parameter(lapped)
        self.gain = nn.Parameter(torch.zeros(3, CHANNELS))              # log gain of a coefficient, by type
        self.gain_slope = nn.Parameter(torch.zeros(3, CHANNELS))        # its change by octave of Δ
        self.ha = nn.Sequential(_conv(2 * CHANNELS + 3, 96, 1), nn.LeakyReLU(0.1), _conv(96, 96, 5, 2),
                                nn.LeakyReLU(0.1), _conv(96, HYPER, 5, 4))

    def transform(self, residual: Tensor, side: Side) -> Tensor:
        """[B, CHANNELS, H, W] in steps (real-valued); `first_joined` of them are the latents that `walk` quantises.
        residual: picture minus prediction, [B, 6, h, w]."""
        with torch.autocast(residual.device.type, enabled=False):       # high rates need more than bfloat16's bits
            border = ((self.core.shape[-1] - self.stride) // 2,) * 4
            linear = F.conv2d(F.pad(residual, border, mode="reflect"), self.core, stride=self.stride)
        octave = (side.t / 16.0 - 3.5)[:, None]
        log = self.gain[side.kind] - self.gain_slope[side.kind] * octave
        scale = torch.exp(log) / step_size(side.t)[:, None]
        return linear * scale[:, :, None, None]

    def hyper(self, y: Tensor, side: Side) -> Tensor:
        """Hyper-latent before rounding, [B, HYPER, ⌈H/8⌉, ⌈W/8⌉]. y: of `transform`."""
        log = torch.log1p(y.abs()) * 0.5
        plane = (side.planes / 32.0).expand(y.shape[0], 3, *y.shape[2:])
        return self.ha(torch.cat([log * torch.sign(y), log, plane], 1)).float() * 4.0
