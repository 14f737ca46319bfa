"""How exactness is had: the one file that knows. Exported integers in, a network with exact kernels out.

A weights file (safetensors) holds, for a convolution `name`:

  name.weight   int8 [cout, cin, k, k]      weight = int · 2^exponent
  name.exponent int8 [cout]
  name.bias     int32 [cout]                bias = int · 2^exponent, at most 8 significant bits

and the tables that stand for the few functions that are not sums of products (so that no decoder calls exp or log):

  core          int16 [96, 6, 8, 8]         linear synthesis, units of 2^-14
  gains         int32 [3, 128, 96]          one eighth of a step of coefficient c at type, t; units of 2^-10 pixel
  inverse       int32 [128]                 8/Δ(t), units of 2^-10
  log           uint8 [2048]                round(16·log(1 + n/8))
  z_index       uint8 [3, 128, 48]          table of the hyper-latent's symbols
  cdf, radius   int32 [64, L+1], int32 [64] static tables of the range coder (nvc/entropy/range_coder.py); index 0
  codes nothing

The linear synthesis (nvc/network/linear.py) is integer arithmetic in numba and needs no such care.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from torch import Tensor

from nvc.entropy.range_coder import Tables
from nvc.network import linear
from nvc.network.byte_layers import SIGNED, ByteLayer, faster
from nvc.network.layers import Conv, exact_conv
from nvc.network.layout import FILTER_CHANNELS, FILTER_SIGNED
from nvc.network.network import LOCAL_MAX, SCALES, T_MAX, V8_MAX, Network, Side, step_size

CORE_BITS, GAIN_BITS, INVERSE_BITS = 14, 10, 10
ACT_MAX = 255
EXACT = 1 << 24                 # float32 holds every integer up to here
SELF_TEST_SHAPES = ((24, 20), (2, 1), (1, 9))     # narrow grids run other kernels, some of them wrong


class ExactnessError(Exception):
    """Weights that could round in float32, or a machine whose kernels do: nothing may be coded with them."""


@dataclass
class Weights:
    """A weights file in memory. `model_sha256` names it."""

    tensors: dict[str, Tensor]
    model_sha256: str

    @staticmethod
    def read(path: Path) -> Weights:
        data = path.read_bytes()
        return Weights(load_safetensors(data), hashlib.sha256(data).hexdigest())


def integers_of(conv: Conv) -> tuple[Tensor, Tensor, Tensor]:
    """(int8 weight, int8 exponent, int32 bias) of a trained layer: what `Conv.quantised` rounds to, as integers."""
    with torch.no_grad():
        conv.measure()
        w, b = conv.quantised()
        weight = (w / conv.unit[:, None, None, None]).round()
        bias = (b / conv.unit).round()
    return weight.to(torch.int8), torch.log2(conv.unit).round().to(torch.int8), bias.to(torch.int32)


def prove(name: str, weight: Tensor, bias: Tensor, act_max: int = ACT_MAX) -> int:
    """Largest possible |partial sum| of a layer in units of its weights; ExactnessError at 2^24 or more."""
    bound = int((weight.to(torch.int64).abs().sum((1, 2, 3)) * act_max + bias.to(torch.int64).abs()).max())
    if bound >= EXACT:
        raise ExactnessError(f"layer {name}: a sum may reach {bound}, float32 is exact below {EXACT}")
    return bound


def _zeros_of(name: str, channels: int) -> NDArray[np.int64]:
    """Which byte stands for 0 in each channel of a layer's input grid; see nvc/network/byte_layers.py."""
    zeros = np.full(channels, SIGNED if name.startswith("updates.") or name == "trunk.0" else 0)
    if name == "filter.0":
        assert channels == FILTER_CHANNELS
        zeros[:FILTER_SIGNED] = SIGNED
    return zeros


def context_of(tensors: Mapping[str, Tensor], prefix: str = "") -> int:
    """Channels of the running context that weights are for, those of a `Network` under that prefix."""
    return tensors[f"{prefix}prior.1.weight"].shape[0]


class FixedNetwork(Network):
    """`Network` with the exported integers, on one device, in kernels that were checked to be exact there."""

    in_bytes = True         # on a CPU: nvc/network/byte_layers.py

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        t = weights.tensors
        super().__init__(context_of(t))
        self.requires_grad_(False)
        self.device = torch.device(device)
        self.model_sha256 = weights.model_sha256
        self.tables = Tables(t["cdf"].numpy(), t["radius"].numpy())
        self.z_table = t["z_index"].numpy()
        self.log_table = t["log"].to(torch.float32).to(self.device)
        self.log_bytes = t["log"].numpy()
        self.inverse = (t["inverse"].double() / (1 << INVERSE_BITS)).float().to(self.device)
        self.gain_table = t["gains"].numpy()
        self.local_table = t["local"].numpy()
        self.alike = not (t["local.weight"].any() or t["local.bias"].any())     # every position has the picture's step
        self.core_table = t["core"].to(torch.int32).numpy()
        self.kernels: dict[str, str] = {}
        self.on_bytes: dict[str, ByteLayer] = {}        # those layers that a CPU runs on grids of bytes
        for name, module in self.named_modules():
            if isinstance(module, Conv):
                unit = torch.exp2(t[f"{name}.exponent"].float())
                prove(name, t[f"{name}.weight"], t[f"{name}.bias"])
                w = (t[f"{name}.weight"].float() * unit[:, None, None, None]).to(self.device)
                b = (t[f"{name}.bias"].float() * unit).to(self.device)
                self._install(name, module, w.contiguous(memory_format=torch.channels_last), b)
                if self.in_bytes and self.device.type == "cpu" and not name.startswith("hs."):
                    self.on_bytes[name] = ByteLayer(module, t[f"{name}.weight"], t[f"{name}.exponent"],
                                                    t[f"{name}.bias"], _zeros_of(name, w.shape[1]))
        self._choose_kernels()
        self.dct_bf16 = self.dct.to(self.device, torch.bfloat16)
        self._check_dct()

    def _install(self, name: str, conv: Conv, weight: Tensor, bias: Tensor) -> None:
        """Pick bfloat16 if its kernel gives the very numbers that integer arithmetic does here, else float32."""
        samples = [self_test_input(weight.shape[1], shape, self.device) for shape in SELF_TEST_SHAPES]
        expected = [exact_conv(sample, weight, bias, conv.kernel // 2) for sample in samples]
        for dtype in (torch.bfloat16, torch.float32):
            conv.frozen = (weight.to(dtype), bias.to(dtype))
            with torch.inference_mode():
                made = [conv(sample.to(dtype)).float() for sample in samples]
            if all(torch.equal(m, e) for m, e in zip(made, expected, strict=True)):
                self.kernels[name] = str(dtype).removeprefix("torch.")
                return
        raise ExactnessError(f"layer {name}: neither bfloat16 nor float32 kernels are exact on {self.device}")

    def _choose_kernels(self) -> None:
        """Products of 8 bits are used if they are faster here, tried on a layer of usual size."""
        if self.on_bytes and not faster(self.on_bytes["trunk.1"]):
            for layer in self.on_bytes.values():
                layer.packed = None
        self.kernels |= {name: "int8" for name, layer in self.on_bytes.items() if layer.packed is not None}

    def _check_dct(self) -> None:
        sample = self_test_input(6, SELF_TEST_SHAPES[0], self.device) - 128.0
        weight = self.dct.to(self.device)
        expected = exact_conv(sample, weight, None, 0, stride=4)
        with torch.inference_mode():
            if not torch.equal(F.conv2d(sample.to(torch.bfloat16), self.dct_bf16, stride=4).float(), expected):
                self.dct_bf16 = weight          # float32 kernel, rounded afterwards
                if not torch.equal(F.conv2d(sample, weight, stride=4).to(torch.bfloat16).float(), expected):
                    raise ExactnessError(f"transform of the prediction: no exact kernel on {self.device}")

    # -- the functions that are tables here ------------------------------------------------------------------------
    def z_index(self, side: Side) -> Tensor:
        rows = [self.z_table[int(k), int(t)] for k, t in zip(side.kind, side.t, strict=True)]
        return torch.from_numpy(np.stack(rows).astype(np.float32))[..., None, None]

    def log_of(self, v8: Tensor) -> Tensor:
        return self.log_table[v8.abs().clamp_max(V8_MAX).long()]

    def inverse_step(self, side: Side) -> Tensor:
        return self.inverse[side.t.long()]

    def transform(self, planes: Tensor) -> Tensor:
        x = planes.to(self.dct_bf16.dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.dct_bf16, stride=4).to(torch.bfloat16)

    def local_steps(self, index: NDArray[np.int32]) -> NDArray[np.int32]:
        """What `Network.local_step` gave, as factors of the picture's step in 2^-linear.LOCAL_BITS."""
        return self.local_table[index + LOCAL_MAX]

    def synthesis(self, v8: Tensor, features: Tensor, p: Tensor, d: Tensor, side: Side, local: Tensor) -> Tensor:
        """Decoded planes, uint8 [B, 6, h, w]."""
        latents = v8.permute(0, 2, 3, 1).contiguous().to(torch.int32).cpu().numpy()
        prediction = p.to(torch.uint8).contiguous().cpu().numpy()
        gains = [self.gain_table[int(k), int(t)] for k, t in zip(side.kind, side.t, strict=True)]
        steps = self.local_steps(local[:, 0].to(torch.int32).cpu().numpy())
        sums = [linear.sums_of(*parts, self.core_table) for parts in zip(latents, steps, gains, strict=True)]
        base, out = np.empty_like(prediction), np.empty_like(prediction)
        nothing = np.zeros(prediction.shape[1:], np.float32)
        for k in range(len(sums)):
            linear.finish(prediction[k], sums[k], nothing, base[k])
        planes = torch.from_numpy(base).to(self.device).float().contiguous(memory_format=torch.channels_last)
        correction = self.correction(features, planes, p, d, side).contiguous().cpu().numpy()
        for k in range(len(sums)):
            linear.finish(prediction[k], sums[k], correction[k], out[k])
        return torch.from_numpy(out)


def self_test_input(channels: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Fixed pseudo-random activations 0 … 255, [1, channels, *shape]: a linear congruential sequence (Knuth)."""
    i = np.arange(1, channels * shape[0] * shape[1] + 1, dtype=np.uint64)
    noise = ((i * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> np.uint64(40)) & np.uint64(255)
    x = torch.from_numpy(noise.astype(np.float32).reshape(1, channels, *shape))
    return x.contiguous(memory_format=torch.channels_last).to(device)


def tables_of(network: Network) -> dict[str, Tensor]:
    """Integer tables of a trained network, by the formulas of nvc/network/network.py (float64, rounded once, then
    frozen)."""
    steps = torch.arange(T_MAX + 1, dtype=torch.float64)
    octave = steps / 16.0 - 3.5
    with torch.no_grad():
        log = network.gain.double()[:, None] + network.gain_slope.double()[:, None] * octave[None, :, None]
        delta = step_size(steps)
        gains = torch.exp(log) * delta[None, :, None] / 8.0 * (1 << GAIN_BITS)
        z = network.z_scale.double()[:, None] + network.z_slope.double()[:, None] * octave[None, :, None]
        core = network.core.double() * (1 << CORE_BITS)
    local = torch.exp2(torch.arange(-LOCAL_MAX, LOCAL_MAX + 1, dtype=torch.float64) / 8.0) * (1 << linear.LOCAL_BITS)
    n = [round(16.0 * math.log1p(k / 8.0)) for k in range(V8_MAX + 1)]
    return {"core": core.round().to(torch.int16), "gains": gains.round().to(torch.int32),
            "inverse": torch.round((1 << (INVERSE_BITS + 3)) / delta).to(torch.int32),
            "local": local.round().to(torch.int32),
            "log": torch.tensor(n, dtype=torch.uint8),
            "z_index": z.round().clamp(0, SCALES - 1).to(torch.uint8)}
