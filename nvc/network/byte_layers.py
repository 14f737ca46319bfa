"""Layers of grids of bytes on a CPU: in products of 8 bits where the machine has them and they are faster.

A grid is uint8 [pictures, rows, columns, channels]. A byte stands for itself minus the layer's zero: hidden activations
are 0 … 255 (zero 0), features with a sign -128 … 127 (zero 128). Sums of such products are the integers of
nvc/network/layers.py whatever order they are added in, so they may be had by oneDNN's kernels for 8 bits (VNNI, AMX):
twice as many products in a cycle as in bfloat16, and half the memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nvc.network.layers import Conv, exact_conv

SIGNED = 128                    # the zero of features with a sign
Bytes = NDArray[np.uint8]
_TIMED_SHAPE, _TIMED_RUNS = (32, 32), 5
_SHAPES = ((24, 20), (70, 4), (3, 140))     # of self-tests; narrow grids run other kernels
_FEWEST = 128                   # positions of a grid; for fewer, oneDNN brings the weights into another order each time


def as_tensor(grid: NDArray) -> Tensor:
    """A grid as [B, C, H, W] in channels-last order, sharing memory."""
    return torch.from_numpy(grid).permute(0, 3, 1, 2)


class ByteLayer:
    """One layer of a network; call it with a grid. -> product sums rounded to bfloat16, [B, channels, rows, columns].

    weight int8, exponent, bias: its integers (see fixed_point.py). zeros [channels in]: the zero of each channel; where
    they are mixed, grids come with a margin for the kernel, of each channel's own zero. conv: the layer in its own
    kernels, already exact, for small grids and for machines without products of 8 bits.
    """

    def __init__(self, conv: Conv, weight: Tensor, exponent: Tensor, bias: Tensor, zeros: NDArray[np.integer]) -> None:
        self.conv, self.weight = conv, weight
        mixed = bool((zeros != zeros[0]).any())
        self.zero = 0 if mixed else int(zeros[0])
        self._zeros = torch.from_numpy(zeros).float()[:, None, None]
        self._margin = weight.shape[2] // 2 if mixed else 0
        self._pad = [weight.shape[2] // 2 - self._margin] * 2
        self._unit = torch.exp2(exponent.float())
        # Sums over bytes are too large by each weight times its channel's zero.
        excess = (weight.double() * torch.from_numpy(zeros)[:, None, None] * mixed).sum((1, 2, 3))
        self._bias = ((bias.double() - excess) * self._unit).float()
        self._own_bias = bias.float() * self._unit
        self._matrix: Tensor | None = None      # of weights, see `at`; made when needed
        self._zero_points = torch.zeros(len(weight), dtype=torch.int64)
        self.packed: Tensor | None = None       # for products of 8 bits, where they are used
        if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
            self._try()

    def _try(self) -> None:
        """Use products of 8 bits, if this machine has them and they give the very sums."""
        try:
            self.packed = torch.ops.onednn.qconv_prepack(self.weight, self._unit, 1.0, self.zero, [1, 1], self._pad,
                                                         [1, 1], 1, None)
            exact = all(torch.equal(self(grid).float(), self._expected(grid)) for grid in self._samples())
        except (AttributeError, NotImplementedError, RuntimeError):     # torch was built without them
            exact = False
        if not exact:
            self.packed = None

    def __call__(self, grid: Bytes) -> Tensor:
        x = as_tensor(grid)
        if not self._takes(grid.size // grid.shape[3]):
            made, margin = self.conv(x.float() - self._zeros), self._margin
            return made[:, :, margin:-margin, margin:-margin] if margin else made
        return torch.ops.onednn.qconv2d_pointwise(x, 1.0, self.zero, self.packed, self._unit, self._zero_points,
                                                  self._bias, [1, 1], self._pad, [1, 1], 1, 1.0, 0, torch.bfloat16,
                                                  "none", [], "")

    def _takes(self, positions: int) -> bool:
        """Whether products of 8 bits are used for that many positions."""
        return self.packed is not None and positions >= _FEWEST

    def at(self, patches: NDArray[np.float32]) -> Tensor:
        """Product sums rounded to bfloat16, [n, channels], at positions whose inputs are given, also beyond a byte:
        [n, kernel, kernel, channels in]."""
        if self._matrix is None:
            weight = self.weight.float() * self._unit[:, None, None, None]
            self._matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()
        made = torch.from_numpy(patches.reshape(len(patches), -1)) @ self._matrix
        return (made + self._own_bias).to(torch.bfloat16)

    def _samples(self) -> list[Bytes]:
        """Grids for the self-test: noise, and the largest bytes everywhere. Machines that add pairs of products in 16
        bits saturate for the latter if they ever do."""
        channels = self.weight.shape[1]
        noise = [np.random.default_rng(n).integers(0, 256, (1, *shape, channels), np.uint8)
                 for n, shape in enumerate(_SHAPES)]
        return [*noise, np.full((1, *_SHAPES[0], channels), 255, np.uint8)]

    def _expected(self, grid: Bytes) -> Tensor:
        weight = self.weight.float() * self._unit[:, None, None, None]
        return exact_conv(as_tensor(grid).float() - self.zero, weight, self._bias, self._pad[0])


def faster(layer: ByteLayer) -> bool:
    """Whether a layer's products of 8 bits take less time here than its own kernel."""
    conv = layer.conv
    if layer.packed is None or conv.frozen is None:
        return False
    grid = np.zeros((1, *_TIMED_SHAPE, layer.weight.shape[1]), np.uint8)
    own = as_tensor(grid).to(conv.frozen[0].dtype)
    with torch.inference_mode():
        return _seconds(lambda: layer(grid)) < _seconds(lambda: conv(own))


def _seconds(work: Callable[[], Tensor]) -> float:
    """The shortest of some runs."""
    took = []
    for _ in range(_TIMED_RUNS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)
