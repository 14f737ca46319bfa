"""`decode.reconstruct` on a CPU: convolutions of bytes, everything between them in the one-pass kernels of layout.py.

Gives the very numbers of `Network` in tensors (tests compare them), about twice as fast: pictures of this size spend
more time in copies and roundings than in products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nvc.network import layout, linear
from nvc.network.byte_layers import SIGNED, ByteLayer, Bytes, as_tensor
from nvc.network.fixed_point import FixedNetwork
from nvc.network.layout import FILTER_CHANNELS, as_grid, side_grid
from nvc.network.network import CHANNELS, FIRST, GROUPS, STEPS, Side

Integers = NDArray[np.int32]
Patterns = NDArray[np.int16]            # bfloat16, see layout.py
Visit = Callable[[int, Integers, Integers, Integers], Integers]
MOST_APART = 1 / 16         # of the in-loop filter's positions may be computed apart; beyond, all are in wider numbers
_FEATURE = [0, *(2 * first + GROUPS[0] for first in FIRST[1:-1])]       # group 0 has a third feature
_FEATURES = 2 * CHANNELS + GROUPS[0]
_SPECTRAL = 2 * (CHANNELS + 4 * GROUPS[0])


def _active(layer: ByteLayer, grid: Bytes) -> Bytes:
    """A layer and its activations."""
    return _activations(as_grid(layer(grid)))


def _activations(sums: Patterns) -> Bytes:
    active = np.empty(sums.shape, np.uint8)
    layout.activate(sums, active)
    return active


def reconstruct(network: FixedNetwork, side: Side, p: NDArray[np.uint8], d: NDArray[np.int16], z: NDArray[np.int32],
                visit: Visit) -> NDArray[np.uint8]:
    """Decoded planes uint8 [B, 6, h, w].

    p, d: prediction and difference of the predictions, [B, 6, h, w]; z: hyper-latent [B, ⌈H/8⌉, ⌈W/8⌉, 48];
    visit(step, mean, index, local) gives the symbols of a step, all int32 [B, rows, columns, n] in stream order; local:
    each position's own step, [B, H, W], see `FixedNetwork.local_steps`.
    """
    context = _start(network, side, p, d, z)
    local = _local_steps(network, context)
    v8, features = _walk(network, context, side, lambda step, mean, index: visit(step, mean, index, local))
    return _synthesis(network, v8, features, p, d, side, local)


def _start(network: FixedNetwork, side: Side, p: NDArray[np.uint8], d: NDArray[np.int16],
           z: NDArray[np.int32]) -> NDArray[np.float32]:
    """The running context before any symbol, float32 [B, H, W, 96]."""
    b, _, h, w = p.shape
    height, width = h // 4, w // 4
    inputs, inverse = np.empty((b, height, width, _SPECTRAL + 3), np.uint8), network.inverse_step(side).numpy()
    for k, planes in enumerate((p.astype(np.int16) - 128, d)):
        spectra = as_grid(network.transform(torch.from_numpy(planes)))
        layout.spectral_features(spectra, inverse, network.log_bytes, k, inputs)
    inputs[..., _SPECTRAL:] = side_grid(side.planes)
    hyper_latent = network.hyper(as_tensor(z.astype(np.float32)), side)[:, :, :height, :width]
    context = as_grid(hyper_latent.float())
    first, second = network.on_bytes["prior.0"], network.on_bytes["prior.1"]
    layout.add(as_grid(second(_active(first, inputs))), context)
    return context


def _local_steps(network: FixedNetwork, context: NDArray[np.float32]) -> NDArray[np.int32]:
    """Each position's own step, [B, H, W], from the context before any symbol."""
    b, height, width, channels = context.shape
    if network.alike:
        return network.local_steps(np.zeros((b, height, width), np.int32))
    gathered = np.empty((b, height, width, channels), np.uint8)
    layout.gather(context, 2, gathered)
    index = network.local_index(network.on_bytes["local"](gathered))
    return network.local_steps(index[:, 0].to(torch.int32).numpy())


def _walk(network: FixedNetwork, context: NDArray[np.float32], side: Side,
          visit: Callable[[int, Integers, Integers], Integers]) -> tuple[Integers, Bytes]:
    """The traversal of a picture's latents; see `Network.walk`."""
    b, height, width, _ = context.shape
    v8 = np.empty((b, height, width, CHANNELS), np.int32)
    spectral_features = np.empty((b, height, width, _FEATURES + 3), np.uint8)
    spectral_features[..., _FEATURES:] = SIGNED + side_grid(side.planes)
    log = network.log_bytes
    for step, (group, parity) in enumerate(STEPS):
        n, colour = GROUPS[group], 2 if parity is None else parity
        hidden, outputs = network.on_bytes[f"heads.{step}.0"], network.on_bytes[f"heads.{step}.1"]
        columns = width if parity is None else width // 2
        gathered = np.empty((b, height, columns, context.shape[3]), np.uint8)
        layout.gather(context, colour, gathered)
        mean, index = (np.empty((b, height, columns, n), np.int32) for _ in range(2))
        layout.parameters(as_grid(outputs(_active(hidden, gathered))), mean, index)
        layout.place(visit(step, mean, index), mean, colour, FIRST[group], v8)
        if group > 0:
            layout.features(v8, colour, FIRST[group], n, _FEATURE[group], log, spectral_features)
        if step == len(STEPS) - 1:
            break                               # nothing is read from the context any more
        fresh = np.empty((b, height, width, (6 if group == 0 else 2) * n), np.uint8)
        if step == 0:
            layout.bands(v8, log, fresh)
        elif step == 1:
            layout.joined(v8, log, spectral_features, fresh)
        else:
            layout.fresh(spectral_features, colour, _FEATURE[group], fresh)
        layout.add(as_grid(network.on_bytes[f"updates.{step}"](fresh)), context)
    return v8, spectral_features


def _synthesis(network: FixedNetwork, v8: NDArray[np.int32], features: Bytes, p: NDArray[np.uint8],
               d: NDArray[np.int16], side: Side, local: NDArray[np.int32]) -> NDArray[np.uint8]:
    b, _, h, w = p.shape
    gains = [network.gain_table[int(k), int(t)] for k, t in zip(side.kind, side.t, strict=True)]
    sums = [linear.sums_of(*parts, network.core_table) for parts in zip(v8, local, gains, strict=True)]
    base, out = np.empty_like(p), np.empty_like(p)
    nothing = np.zeros((6, h, w), np.float32)
    for k in range(b):
        linear.finish(p[k], sums[k], nothing, base[k])
    for layer in range(3):
        features = _active(network.on_bytes[f"trunk.{layer}"], features)
    x = _active(network.on_bytes["filter.1"], _filtered(network, base, p, d, features))
    correction = np.empty((b, 6, h, w), np.float32)
    layout.shuffle(as_grid(network.on_bytes["filter.2"](x)), correction)
    for k in range(b):
        linear.finish(p[k], sums[k], correction[k], out[k])
    return out


def _filtered(network: FixedNetwork, base: NDArray[np.uint8], p: NDArray[np.uint8], d: NDArray[np.int16],
              trunk: Bytes) -> Bytes:
    """The in-loop filter's first layer. Its input fits into bytes unless a prediction errs, or two differ, by 128 and
    more, as at edges of high contrast: what sees those is computed apart."""
    layer, (b, _, h, w) = network.on_bytes["filter.0"], p.shape
    grid = np.empty((b, h // 2 + 2, w // 2 + 2, FILTER_CHANNELS), np.uint8)
    far = np.empty(grid.shape[:3], np.bool_)
    layout.filter_bytes(base, p, d, trunk, grid, far)
    places = np.ascontiguousarray(np.argwhere(far[:, 1:-1, 1:-1]))
    if len(places) <= far.size * MOST_APART:
        sums = as_grid(layer(grid))
        if len(places):
            patches = np.empty((len(places), 3, 3, FILTER_CHANNELS), np.float32)
            layout.filter_patches(base, p, d, trunk, places, patches)
            sums[tuple(places.T)] = layer.at(patches).view(torch.int16).numpy()
        return _activations(sums)
    values = np.empty((b, h // 2, w // 2, FILTER_CHANNELS), np.int16)
    layout.filter_input(base, p, d, trunk, values)
    return _activations(as_grid(network.filter[0](as_tensor(values))))


def in_tensors(network: FixedNetwork, side: Side, p: NDArray[np.uint8], d: NDArray[np.int16],
               z: NDArray[np.int32], visit: Visit) -> NDArray[np.uint8]:
    """The same through `Network`'s own functions, on any device: how a GPU decodes, and the twin of the tests."""
    device = network.device
    side = side.to(device)

    def planes(x: NDArray) -> Tensor:
        return torch.from_numpy(x).to(device).float().contiguous(memory_format=torch.channels_last)

    def grid(x: Tensor) -> NDArray[np.int32]:
        return x.permute(0, 2, 3, 1).contiguous().to(torch.int32).cpu().numpy()

    def step(k: int, mean: Tensor, index: Tensor) -> Tensor:
        symbols = torch.from_numpy(visit(k, grid(mean), grid(index), steps)).to(device)
        return 8.0 * symbols.float().permute(0, 3, 1, 2) + mean

    hyper_latent = torch.from_numpy(z).to(device).float().permute(0, 3, 1, 2)
    context = network.context(hyper_latent, planes(p), planes(d), side)
    local = network.local_step(context)
    steps = network.local_steps(grid(local)[..., 0])
    v8, features = network.walk(context, step)
    return network.synthesis(v8, features, planes(p), planes(d), side, local).numpy()

