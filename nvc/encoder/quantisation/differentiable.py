"""The network with gradients, for an encoder that descends them. No decoder runs this."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nvc.network.fixed_point import CORE_BITS, GAIN_BITS, FixedNetwork, Weights
from nvc.network.layers import clip_, round_
from nvc.network.network import Network, Side, first_joined


class DifferentiableNetwork(FixedNetwork):
    """A `FixedNetwork` that gives the same numbers with gradients: formulas where that one has tables."""

    in_bytes = False

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        self.basis = torch.from_numpy(self.core_table).to(self.device).float() / (1 << CORE_BITS)
        self.of_chroma = self.basis[:, 4:].square().sum((1, 2, 3)) > self.basis[:, :4].square().sum((1, 2, 3))

    def log_of(self, v8: Tensor) -> Tensor:
        return Network.log_of(self, v8)

    def gains(self, side: Side) -> Tensor:
        rows = [self.gain_table[int(k), int(t)] for k, t in zip(side.kind, side.t, strict=True)]
        return torch.from_numpy(np.stack(rows)).to(self.device).float()[:, :, None, None] / (1 << GAIN_BITS)

    def added(self, v8: Tensor, side: Side, local: Tensor) -> Tensor:
        """What the linear synthesis adds to the prediction, real-valued planes; see `Network.linear`."""
        scaled = first_joined(v8 * self.gains(side) * torch.exp2(local / 8.0))
        return F.conv_transpose2d(scaled, self.basis, stride=4, padding=2)

    def synthesis(self, v8: Tensor, features: Tensor, p: Tensor, d: Tensor, side: Side, local: Tensor) -> Tensor:
        """Decoded planes as the decoder rounds and clips them, float32."""
        linear = p + self.added(v8, side, local)
        base = clip_(round_(linear), 0, 255)
        return round_(clip_(linear + self.correction(features, base, p, d, side) / 8.0, 0, 255))
