"""MS-SSIM as a cost with a gradient (Wang, Simoncelli and Bovik 2003), where some samples count more than others.

Means over 6×6 samples, two apart, stand for those under the Gaussian window: in a fraction of the time nearly the same
gradient. What is reported comes from measures/ssim.py. No decoder runs this.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)       # finest first
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
WINDOW, APART = 6, 2
LEAST = 1e-3            # that the similarity of a scale is taken for: its logarithm has a slope everywhere


def _windows(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, WINDOW, APART)


class Similarity:
    """To one source [1, 1, h, w], 0 … 255, at least 6 a side; importance, of that shape: of its samples' errors.

    Scales of which no window fits are left out."""

    def __init__(self, source: Tensor, importance: Tensor) -> None:
        self.scales: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []       # source, means, variances, shares
        while len(self.scales) < len(SCALE_WEIGHTS) and min(source.shape[2:]) >= WINDOW:
            mean, share = _windows(source), _windows(importance)
            self.scales.append((source, mean, _windows(source * source) - mean * mean, share / share.sum()))
            source, importance = F.avg_pool2d(source, 2), F.avg_pool2d(importance, 2)

    def lost(self, made: Tensor) -> Tensor:
        """-log of MS-SSIM, weighed, of a picture [1, 1, h, w]: 0 for the source itself."""
        total = torch.zeros((), device=made.device)
        for k, (source, mean, variance, share) in enumerate(self.scales):
            m, square, product = _windows(torch.cat([made, made * made, made * source], 1)).split(1, 1)
            alike = (2 * (product - m * mean) + C2) / (square - m * m + variance + C2)
            if k == len(self.scales) - 1:
                alike = alike * (2 * m * mean + C1) / (m * m + mean * mean + C1)
            total = total - SCALE_WEIGHTS[k] * torch.log((alike * share).sum().clamp_min(LEAST))
            made = F.avg_pool2d(made, 2)
        return total
