"""`decode.reconstruct` on a CPU: convolutions in torch, everything between them in the one-pass kernels of layout.py.

Gives the very numbers of `Network` in tensors (tests compare them), about twice as fast: pictures of this size spend
more time in copies and roundings than in products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nvc.network import layout, linear
from nvc.network.fixed_point import FixedNetwork
from nvc.network.layout import BITS, as_grid, as_tensor, side_grid
from nvc.network.network import CHANNELS, FIRST, GROUPS, STEPS, Side

Integers = NDArray[np.int32]
Patterns = NDArray[np.int16]
Visit = Callable[[int, Integers, Integers, Integers], Integers]
_FEATURE = [0, *(2 * first + GROUPS[0] for first in FIRST[1:-1])]       # group 0 has a third feature
_FEATURES = 2 * CHANNELS + GROUPS[0]
_SPECTRAL = 2 * (CHANNELS + 4 * GROUPS[0])


def _active(conv: nn.Module, grid: Patterns) -> Patterns:
    """A layer and its activations."""
    sums = as_grid(conv(as_tensor(grid)))
    layout.activate(sums)
    return sums


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
    inputs, inverse = np.empty((b, height, width, _SPECTRAL + 3), np.int16), network.inverse_step(side).numpy()
    for k, planes in enumerate((p.astype(np.int16) - 128, d)):
        spectra = as_grid(network.transform(torch.from_numpy(planes)))
        layout.spectral_features(spectra, inverse, network.log_patterns, k, inputs)
    inputs[..., _SPECTRAL:] = side_grid(side.planes)
    hyper_latent = network.hyper(as_tensor(z.astype(np.float32)), side)[:, :, :height, :width]
    context = as_grid(hyper_latent.float())
    layout.add(as_grid(network.prior[1](as_tensor(_active(network.prior[0], inputs)))), context)
    return context


def _local_steps(network: FixedNetwork, context: NDArray[np.float32]) -> NDArray[np.int32]:
    """Each position's own step, [B, H, W], from the context before any symbol."""
    b, height, width, channels = context.shape
    if network.alike:
        return network.local_steps(np.zeros((b, height, width), np.int32))
    gathered = np.empty((b, height, width, channels), np.int16)
    layout.gather(context, 2, gathered)
    index = network.local_index(network.local(as_tensor(gathered)))
    return network.local_steps(index[:, 0].to(torch.int32).numpy())


def _walk(network: FixedNetwork, context: NDArray[np.float32], side: Side,
          visit: Callable[[int, Integers, Integers], Integers]) -> tuple[Integers, Patterns]:
    """The traversal of a picture's latents; see `Network.walk`."""
    b, height, width, _ = context.shape
    v8 = np.empty((b, height, width, CHANNELS), np.int32)
    spectral_features = np.empty((b, height, width, _FEATURES + 3), np.int16)
    spectral_features[..., _FEATURES:] = side_grid(side.planes)
    log = network.log_patterns
    for step, (group, parity) in enumerate(STEPS):
        n, colour = GROUPS[group], 2 if parity is None else parity
        hidden, outputs = cast(nn.ModuleList, network.heads[step])
        columns = width if parity is None else width // 2
        gathered = np.empty((b, height, columns, context.shape[3]), np.int16)
        layout.gather(context, colour, gathered)
        mean, index = (np.empty((b, height, columns, n), np.int32) for _ in range(2))
        layout.parameters(as_grid(outputs(as_tensor(_active(hidden, gathered)))), mean, index)
        layout.place(visit(step, mean, index), mean, colour, FIRST[group], v8)
        if group > 0:
            layout.features(v8, colour, FIRST[group], n, _FEATURE[group], log, spectral_features)
        if step == len(STEPS) - 1:
            break                               # nothing is read from the context any more
        fresh = np.empty((b, height, width, (6 if group == 0 else 2) * n), np.int16)
        if step == 0:
            layout.bands(v8, log, BITS, fresh)
        elif step == 1:
            layout.joined(v8, log, BITS, spectral_features, fresh)
        else:
            layout.fresh(spectral_features, colour, _FEATURE[group], fresh)
        layout.add(as_grid(network.updates[step](as_tensor(fresh))), context)
    return v8, spectral_features


def _synthesis(network: FixedNetwork, v8: NDArray[np.int32], features: Patterns, p: NDArray[np.uint8],
               d: NDArray[np.int16], side: Side, local: NDArray[np.int32]) -> NDArray[np.uint8]:
    b, _, h, w = p.shape
    gains = [network.gain_table[int(k), int(t)] for k, t in zip(side.kind, side.t, strict=True)]
    sums = [linear.sums_of(*parts, network.core_table) for parts in zip(v8, local, gains, strict=True)]
    base, out = np.empty_like(p), np.empty_like(p)
    nothing = np.zeros((6, h, w), np.float32)
    for k in range(b):
        linear.finish(p[k], sums[k], nothing, base[k])
    for conv in network.trunk:
        features = _active(conv, features)
    inputs = np.empty((b, h // 2, w // 2, 104), np.int16)
    layout.filter_input(base, p, d, features, BITS, inputs)
    x = _active(network.filter[1], _active(network.filter[0], inputs))
    correction = np.empty((b, 6, h, w), np.float32)
    layout.shuffle(as_grid(network.filter[2](as_tensor(x))), correction)
    for k in range(b):
        linear.finish(p[k], sums[k], correction[k], out[k])
    return out


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

