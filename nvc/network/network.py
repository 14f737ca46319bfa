"""The networks of the codec, one definition for training, encoder and decoder.

Made of layers of integers (nvc/network/layers.py), so that every decoder computes the same numbers.

Shapes: B pictures; h, w half the (padded) picture size; H = h/4, W = w/4 the latent grid, one position for 8×8 luma
pixels. A picture is `planes` [B, 6, h, w]: the four phases of Y, then U, then V. Group 0, the lowest frequencies, is
coded as bands: its latents at each 2×2 positions are joined by a second transform, and band k stands at position k
(`join`). See docs/codec.md for the picture of the data flow; the structure follows hyperprior and autoregressive groups
of Minnen et al. (arXiv:1809.02736, arXiv:2003.12000) with the checkerboard of He et al. (arXiv:2103.15306).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nvc.network.layers import Conv, act, clip_, round_

CHANNELS = 96           # linear core: 64 luma + 32 chroma coefficients of an 8×8 block, lowest frequencies first
GROUPS = (4, 12, 32, 48)
FIRST = tuple(sum(GROUPS[:k]) for k in range(len(GROUPS) + 1))        # first channel of each group, and the end
STEPS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, None))   # (group, checkerboard parity or both)
CONTEXT = 96            # channels of the running context, where weights do not have others
HYPER = 48              # channels of the hyper-latent, one position for 64×64 luma pixels
TYPES = {"I": 0, "P": 1, "B": 2}
HYPER_MAX = 127         # its largest symbol
T_MAX = 127             # step index: Δ = 2^(t/16)
SCALES = 64             # scale index i stands for a Laplace distribution of scale 0.06·e^(i/8) steps
LOCAL_MAX = 24          # a position's own step is Δ·2^(k/8), k at most this either way
MEAN_MAX = 1023         # a mean is an integer of eighths of a step
V8_MAX = 2047           # feature tables cover this many eighths of a step
# 2×2 DCT of positions (0, 0), (0, 1), (1, 0), (1, 1), which are bands in the same order; its own inverse. On the
# checkerboard bands 0 and 3 have the first colour, 1 and 2 the second.
BANDS = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) * 0.5


def step_size(t: Tensor) -> Tensor:
    """Quantisation step Δ of step index t (0 … 127): 1 … 245."""
    return torch.exp2(t / 16.0)


def scale_of(index: Tensor) -> Tensor:
    """Laplace scale b, in steps, of a scale index 0 … 63."""
    return 0.06 * torch.exp(index / 8.0)


def dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II, [n frequencies, n samples]."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    m = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2.0 / n)
    m[0] /= math.sqrt(2.0)
    return m


def dct_basis() -> Tensor:
    """[96, 6, 4, 4]: 8×8 DCT of Y (over its four phases) and 4×4 DCT of U and V, ordered by frequency."""
    d8, d4 = dct_matrix(8), dct_matrix(4)
    rows: list[tuple[float, Tensor]] = []
    for a in range(8):
        for b in range(8):
            block, p = torch.outer(d8[a], d8[b]), torch.zeros(6, 4, 4, dtype=torch.float64)
            for dy in range(2):
                for dx in range(2):
                    p[dy * 2 + dx] = block[dy::2, dx::2]
            rows.append(((a * a + b * b) / 64.0, p))
    for c in (4, 5):
        for a in range(4):
            for b in range(4):
                p = torch.zeros(6, 4, 4, dtype=torch.float64)
                p[c] = torch.outer(d4[a], d4[b])
                rows.append(((a * a + b * b) / 16.0 * 1.2 + 0.001, p))
    rows.sort(key=lambda row: row[0])
    return torch.stack([p for _, p in rows]).float()


def gather(x: Tensor, parity: int | None) -> Tensor:
    """Positions of one checkerboard colour: [B, C, H, W] → [B, C, H, W/2] (even rows first, then odd); all if None."""
    if parity is None:
        return x
    return torch.cat([x[:, :, 0::2, parity::2], x[:, :, 1::2, 1 - parity::2]], 2)


def scatter(x: Tensor, parity: int | None) -> Tensor:
    """Inverse of `gather`, zeros elsewhere."""
    if parity is None:
        return x
    b, c, rows, half = x.shape
    even, odd = x[:, :, : rows // 2], x[:, :, rows // 2 :]
    zero = torch.zeros_like(even)
    pair = (lambda v: [v, zero]) if parity == 0 else (lambda v: [zero, v])
    even = torch.stack(pair(even), -1).reshape(b, c, rows // 2, 2 * half)
    odd = torch.stack(pair(odd)[::-1], -1).reshape(b, c, rows // 2, 2 * half)
    return torch.stack([even, odd], 3).reshape(b, c, rows, 2 * half)


def join(x: Tensor) -> Tensor:
    """Bands of the latents at each 2×2 positions of [B, C, H, W], in the places of these; its own inverse."""
    b, c, h, w = x.shape
    found = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h // 2, w // 2, 1, 4)
    made = (found * BANDS.to(x)).sum(-1)                # not as a matrix product, which would be rounded to bfloat16
    return made.reshape(b, c, h // 2, w // 2, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)


def first_joined(x: Tensor) -> Tensor:
    """Group 0 of [B, CHANNELS, H, W] joined, the others as they are; its own inverse."""
    return torch.cat([join(x[:, :GROUPS[0]]), x[:, GROUPS[0]:]], 1)


def one_position_each(x: Tensor) -> list[Tensor]:
    """[B, C, H, W] four times, each with zeros at all but one position, or band, of each 2×2."""
    masks = torch.eye(4, dtype=x.dtype, device=x.device).reshape(4, 2, 2)
    return [x * mask.repeat(x.shape[2] // 2, x.shape[3] // 2) for mask in masks]


@dataclass
class Side:
    """What every network gets to know of a picture: its type and step. `planes` [B, 3, 1, 1], integers 0 … 127."""

    kind: Tensor        # [B] int64: 0 I, 1 P, 2 B
    t: Tensor           # [B] float: step index
    planes: Tensor

    @staticmethod
    def of(kind: Tensor, t: Tensor) -> Side:
        columns = [t.float(), 64.0 * (kind == 1), 64.0 * (kind == 2)]
        return Side(kind, t.float(), torch.stack([c.float() for c in columns], 1)[:, :, None, None])

    def to(self, device: torch.device) -> Side:
        return Side(self.kind.to(device), self.t.to(device), self.planes.to(device))

    def join(self, tensors: list[Tensor]) -> Tensor:
        h, w = tensors[0].shape[2:]
        b = tensors[0].shape[0]
        dtype = torch.bfloat16
        return torch.cat([*[x.to(dtype) for x in tensors], self.planes.to(dtype).expand(b, 3, h, w)], 1)


class Network(nn.Module):
    """All that a decoder needs: hyper-synthesis h_s, prediction context, running context, heads, synthesis g_s."""

    dct: Tensor
    stride = 4              # of latents, in samples of planes

    def __init__(self, context: int | None = None) -> None:
        """context: channels of the running context; CONTEXT if None."""
        super().__init__()
        context = context or CONTEXT
        basis = dct_basis()
        lapped = torch.zeros(CHANNELS, 6, 8, 8)
        lapped[:, :, 2:6, 2:6] = basis
        self.core = nn.Parameter(lapped)                                # linear synthesis, kernel 8, stride 4
        self.register_buffer("dct", torch.round(basis * 256.0) / 256.0)  # of the prediction, kernel 4, stride 4
        self.gain = nn.Parameter(torch.zeros(3, CHANNELS))              # log gain of a coefficient, by type
        self.gain_slope = nn.Parameter(torch.zeros(3, CHANNELS))        # its change by octave of Δ
        self.z_scale = nn.Parameter(torch.full((3, HYPER), 20.0))       # scale index of the hyper-latent, by type
        self.z_slope = nn.Parameter(torch.zeros(3, HYPER))

        self.hs = nn.ModuleList([Conv(HYPER + 3, 96, 3), Conv(96, 64 * 16), Conv(64, 64, 3), Conv(64, context * 4)])
        self.prior = nn.ModuleList([Conv(2 * (CHANNELS + 4 * GROUPS[0]) + 3, 96), Conv(96, context, 3)])
        self.local = Conv(context, 1, gain=0.0)
        self.heads = nn.ModuleList()
        self.updates = nn.ModuleList()
        for group, _ in STEPS:
            bands, n = 2 if group == 0 else 1, GROUPS[group]    # two of each colour; three features of each latent
            self.heads.append(nn.ModuleList([Conv(context, context), Conv(context, 2 * bands * n, gain=0.7)]))
            self.updates.append(Conv((6 if group == 0 else 2) * n, context, 3, gain=0.5))
        self.updates = self.updates[:-1]
        self.trunk = nn.ModuleList([Conv(2 * CHANNELS + GROUPS[0] + 3, 128), Conv(128, 96, 3), Conv(96, 128)])
        self.filter = nn.ModuleList([Conv(72 + 32, 48, 3), Conv(48, 48, 3), Conv(48, 24, 3, gain=0.05)])

    def measure(self) -> None:
        """See Conv.measure."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.measure()

    # -- entropy parameters -----------------------------------------------------------------------------------------
    def z_index(self, side: Side) -> Tensor:
        """[B, HYPER, 1, 1] scale indices of the hyper-latent."""
        octave = (side.t / 16.0 - 3.5)[:, None]
        return round_(clip_(self.z_scale[side.kind] + self.z_slope[side.kind] * octave, 0, SCALES - 1))[..., None, None]

    def context(self, z: Tensor, p: Tensor, d: Tensor, side: Side) -> Tensor:
        """Start of the running context, [B, its channels, H, W] float32 integers.

        z: hyper-latent [B, HYPER, ⌈H/8⌉, ⌈W/8⌉]; p: prediction planes; d: difference of the two predictions.
        """
        height, width = p.shape[2] // self.stride, p.shape[3] // self.stride
        hyper = self.hyper(z, side)[:, :, :height, :width]
        spectra = [self.spectrum(v, side) for v in (p - 128.0, d)]
        features = [self.log_of(v) for v in spectra]
        for v in spectra:
            features += one_position_each(self.log_of(round_(join(v[:, :GROUPS[0]]))))
        return hyper + round_(self.prior[1](act(self.prior[0](side.join(features)))).float())

    def local_step(self, context: Tensor) -> Tensor:
        """Step of each position beside the picture's, in eighths of an octave, [B, 1, H, W]: a perceptual measure
        wants finer steps where the picture is smooth. Known before any symbol, from the start of the context."""
        return self.local_index(self.local(act(context)))

    def local_index(self, raw: Tensor) -> Tensor:
        return round_(clip_(raw.float() * 0.125, -LOCAL_MAX, LOCAL_MAX))

    def hyper(self, z: Tensor, side: Side) -> Tensor:
        """Hyper-synthesis h_s: what the context starts with, [B, its channels, 8·⌈H/8⌉, 8·⌈W/8⌉] float32 integers."""
        x = act(self.hs[0](side.join([(z * 8.0).clamp(-255, 255)])))
        x = act(F.pixel_shuffle(self.hs[1](x), 4))
        x = act(self.hs[2](x))
        return round_(F.pixel_shuffle(self.hs[3](x), 2).float())

    def inverse_step(self, side: Side) -> Tensor:
        """8/Δ to ten binary places, [B]."""
        return torch.round(8192.0 / step_size(side.t)) / 1024.0

    def transform(self, planes: Tensor) -> Tensor:
        """DCT of planes (integers -255 … 255) in pixel units, eight significant bits."""
        return F.conv2d(planes.to(torch.bfloat16), self.dct.to(torch.bfloat16), stride=self.stride)

    def spectrum(self, planes: Tensor, side: Side) -> Tensor:
        """DCT of planes (integers -255 … 255) in eighths of a step, integers."""
        return torch.round(self.transform(planes).float() * self.inverse_step(side)[:, None, None, None])

    def parameters_of(self, step: int, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (eighths of a step) and scale index of the symbols of one step, each [B, n, H, W or W/2]."""
        group, parity = STEPS[step]
        raw = self.head(step, act(gather(context, parity))).float()
        if group == 0:              # even rows are one band, odd rows another
            half, two = raw.shape[2] // 2, raw.chunk(2, 1)
            raw = torch.cat([two[0][:, :, :half], two[1][:, :, half:]], 2)
        mean, index = raw.split(GROUPS[group], 1)
        return round_(mean * 0.5).clamp(-MEAN_MAX, MEAN_MAX), round_(clip_(index * 0.25 + 20.0, 0, SCALES - 1))

    def log_of(self, v8: Tensor) -> Tensor:
        """round(16·log(1 + |v|)) of values in eighths of a step: 0 … 89."""
        return round_(16.0 * torch.log1p(v8.abs().clamp_max(V8_MAX) / 8.0))

    def head(self, step: int, x: Tensor) -> Tensor:
        """Product sums of the two layers that read a step's parameters from the context."""
        first, second = cast(nn.ModuleList, self.heads[step])
        return second(act(first(x)))

    def features(self, group: int, v8: Tensor) -> Tensor:
        """What the networks see of latents (in eighths of a step): signed log, log, and for group 0 the value."""
        log = self.log_of(v8)
        parts = [log * torch.sign(v8).detach(), log]
        if group == 0:
            parts.append(round_(v8 * 0.125).clamp(-127, 127))
        return torch.cat(parts, 1)

    def update(self, step: int, context: Tensor, features: Tensor) -> Tensor:
        """The running context after the symbols of one step; features: of its latents, [B, .., H, W], of group 0's
        bands while they are half, then of what they stand for."""
        group, parity = STEPS[step]
        if group == 0:          # the two bands separately, then the two colours
            four = one_position_each(features)
            features = torch.cat([four[0] + four[3], four[1] + four[2]] if parity else [four[0], four[3]], 1)
        return context + round_(self.updates[step](features).float())

    def walk(self, context: Tensor, visit: Callable[[int, Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The one traversal of a picture's latents, for training, encoder and decoder.

        `visit(step, mean, index)` returns the latents of that step in eighths of a step (8·symbol + mean); steps are
        those of `local_step`.
        Returns all latents v8 [B, CHANNELS, H, W], group 0 as bands, and their features [B, 2·CHANNELS + 4, H, W],
        those of group 0 of what the bands stand for.
        """
        latents: list[Tensor] = []
        features: list[Tensor] = []
        for step, (group, parity) in enumerate(STEPS):
            v8 = visit(step, *self.parameters_of(step, context))
            latents.append(latents.pop() + scatter(v8, parity) if parity else scatter(v8, parity))
            if group == 0 and parity:
                fresh = self.features(0, round_(join(latents[-1])))
                features[-1] = fresh
            else:
                fresh = scatter(self.features(group, v8), parity)
                features.append(features.pop() + fresh if parity else fresh)
            if step < len(STEPS) - 1:
                context = self.update(step, context, fresh)
        return torch.cat(latents, 1), torch.cat(features, 1)

    # -- synthesis --------------------------------------------------------------------------------------------------
    def gains(self, side: Side) -> Tensor:
        """Size of one eighth of a step of each coefficient, in pixel units times 8·… : [B, CHANNELS, 1, 1]."""
        octave = (side.t / 16.0 - 3.5)[:, None]
        log = self.gain[side.kind] + self.gain_slope[side.kind] * octave
        return (torch.exp(log) * step_size(side.t)[:, None] / 8.0)[:, :, None, None]

    def linear(self, v8: Tensor, p: Tensor, side: Side, local: Tensor) -> Tensor:
        """Linear reconstruction: prediction plus lapped inverse transform, real-valued planes."""
        with torch.autocast(v8.device.type, enabled=False):
            scaled = first_joined(v8 * self.gains(side) * torch.exp2(local / 8.0))
            margin = (self.core.shape[-1] - self.stride) // 2
            return p + F.conv_transpose2d(scaled, self.core, stride=self.stride, padding=margin)

    def correction(self, features: Tensor, base: Tensor, p: Tensor, d: Tensor, side: Side) -> Tensor:
        """In-loop filter and non-linear synthesis: what to add to `base`, in eighths of a pixel, integer planes.

        base: the linear reconstruction as integers 0 … 255.
        """
        x = side.join([features])
        for layer in self.trunk[:2]:
            x = act(layer(x))
        x = act(F.pixel_shuffle(self.trunk[2](x), self.stride // 2))
        inputs = [F.pixel_unshuffle(v, 2) for v in (base - 128.0, (base - p).clamp(-255, 255), d.clamp(-255, 255))]
        x = torch.cat([*[v.to(torch.bfloat16) for v in inputs], x.to(torch.bfloat16)], 1)
        for layer in self.filter[:2]:
            x = act(layer(x))
        return F.pixel_shuffle(round_(self.filter[2](x).float()), 2)

    def synthesis(self, v8: Tensor, features: Tensor, p: Tensor, d: Tensor, side: Side, local: Tensor) -> Tensor:
        """Decoded planes, real-valued and unclipped; the decoder rounds and clips them to 0 … 255."""
        linear = self.linear(v8, p, side, local)
        base = round_(linear).clamp(0, 255)
        return linear + self.correction(features, base, p, d, side) / 8.0
