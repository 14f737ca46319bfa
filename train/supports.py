"""Other supports of the transform, to be compared with nvc/network/network.py's by train/ablate.py.

    Wide      latents at stride 16: 384 channels of 16×16 luma samples; 16×16 DCT or hybrid basis

Shapes as in nvc/network/network.py: planes [B, 6, h, w]. Wide's latent grid is H = h/8, W = w/8. Only training knows
these networks: nothing proves that their product sums are exact.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nvc.encoder.analysis import Analysis
from nvc.network import network
from nvc.network.layers import Conv, act, round_
from nvc.network.network import HYPER, STEPS, Network, Side, dct_matrix

GROUPS = (16, 48, 128, 192)     # of Wide's channels
CONTEXT = 256                   # channels of its running context
JOINED = {8: 3, 4: 1}           # hybrid: frequencies u + v up to this are joined, of blocks of 8 (luma) or 4 (chroma)
MARGIN = 2                      # of the lapped kernels, half-size samples either way, as at stride 8


def blocks(n: int, hybrid: bool) -> list[tuple[float, Tensor]]:
    """Orthonormal basis of 2n × 2n samples: (squared frequency, 0 … 2; block [2n, 2n])."""
    whole, part, pair = dct_matrix(2 * n), dct_matrix(n), dct_matrix(2)
    if not hybrid:
        return [((u * u + v * v) / (4.0 * n * n), torch.outer(whole[u], whole[v]))
                for u, v in product(range(2 * n), repeat=2)]
    found, apart = [], torch.eye(2, dtype=torch.float64)
    for u, v, a, b in product(range(n), range(n), range(2), range(2)):
        joined = u + v <= JOINED[n]
        four = pair if joined else apart                                # what becomes of the four blocks' coefficients
        y, x = (2 * u + a, 2 * v + b) if joined else (2 * u + 0.5, 2 * v + 0.5)
        block = torch.kron(torch.outer(four[a], four[b]), torch.outer(part[u], part[v]))
        found.append(((y * y + x * x) / (4.0 * n * n), block))
    return found


def wide_basis(hybrid: bool) -> Tensor:
    """[384, 6, 8, 8]: 16×16 luma (over its four phases), 8×8 U and V, ordered by frequency as `dct_basis` does.

    hybrid: blocks of half that side, the lowest frequencies of the four joined by a 2×2 DCT, instead of one DCT."""
    rows: list[tuple[float, Tensor]] = []
    for frequency, block in blocks(8, hybrid):
        planes = torch.zeros(6, 8, 8, dtype=torch.float64)
        planes[:4] = F.pixel_unshuffle(block[None], 2)
        rows.append((frequency, planes))
    for c in (4, 5):
        for frequency, block in blocks(4, hybrid):
            planes = torch.zeros(6, 8, 8, dtype=torch.float64)
            planes[c] = block
            rows.append((frequency * 1.2 + 0.001, planes))
    rows.sort(key=lambda row: row[0])
    return torch.stack([planes for _, planes in rows]).float()


class Wide(Network):
    """A decoder's networks with latents at stride 16; `nvc.network`'s constants and `dct_basis` say which."""

    stride = 8

    def __init__(self, context: int | None = None) -> None:
        nn.Module.__init__(self)
        context = context or network.CONTEXT
        basis, channels, first = network.dct_basis(), network.CHANNELS, network.GROUPS[0]
        self.core = nn.Parameter(F.pad(basis, (MARGIN,) * 4))           # kernel 12, stride 8
        self.register_buffer("dct", torch.round(basis * 512.0) / 512.0)  # kernel 8, stride 8
        self.gain = nn.Parameter(torch.zeros(3, channels))
        self.gain_slope = nn.Parameter(torch.zeros(3, channels))
        self.z_scale = nn.Parameter(torch.full((3, HYPER), 20.0))
        self.z_slope = nn.Parameter(torch.zeros(3, HYPER))
        self.hs = nn.ModuleList([Conv(HYPER + 3, 96, 3), Conv(96, 96 * 16), Conv(96, 96, 3), Conv(96, context)])
        self.prior = nn.ModuleList([Conv(2 * (channels + 4 * first) + 3, 144), Conv(144, context, 3)])
        self.local = Conv(context, 1, gain=0.0)
        self.heads = nn.ModuleList()
        self.updates = nn.ModuleList()
        for group, _ in STEPS:
            bands, n = 2 if group == 0 else 1, network.GROUPS[group]
            self.heads.append(nn.ModuleList([Conv(context, context), Conv(context, 2 * bands * n, gain=0.7)]))
            self.updates.append(Conv((6 if group == 0 else 2) * n, context, 3, gain=0.5))
        self.updates = self.updates[:-1]
        self.trunk = nn.ModuleList([Conv(2 * channels + first + 3, 256), Conv(256, 160, 3), Conv(160, 32 * 16)])
        self.filter = nn.ModuleList([Conv(72 + 32, 48, 3), Conv(48, 48, 3), Conv(48, 24, 3, gain=0.05)])

    def hyper(self, z: Tensor, side: Side) -> Tensor:
        x = act(self.hs[0](side.join([(z * 8.0).clamp(-255, 255)])))
        x = act(F.pixel_shuffle(self.hs[1](x), 4))
        return round_(self.hs[3](act(self.hs[2](x))).float())


class WideAnalysis(Analysis):
    """The encoder's networks for Wide."""

    stride = 8

    def __init__(self) -> None:
        nn.Module.__init__(self)
        channels = network.CHANNELS

        def conv(cin: int, cout: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
            return nn.Conv2d(cin, cout, kernel, stride, padding)

        self.core = nn.Parameter(F.pad(network.dct_basis(), (MARGIN,) * 4))
        self.gain = nn.Parameter(torch.zeros(3, channels))
        self.gain_slope = nn.Parameter(torch.zeros(3, channels))
        self.ha = nn.Sequential(conv(2 * channels + 3, 192, 1), nn.LeakyReLU(0.1), conv(192, 96, 5, 2, 2),
                                nn.LeakyReLU(0.1), conv(96, HYPER, 5, 2, 2))
