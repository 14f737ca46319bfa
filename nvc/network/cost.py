"""What the decoder's networks cost, counted and not timed: what papers compare codecs by, on any machine the same."""

from __future__ import annotations

import functools
from typing import Any

import torch

from nvc.network.layers import Conv
from nvc.network.model import load_model
from nvc.network.network import Side


def kmac_per_pixel(model: str, height: int, width: int) -> dict[str, float]:
    """Multiplications of the decoder's networks for one luma pixel, in thousands, by part; counted while they run."""
    network, counts = load_model(model).network, dict[str, float]()

    def count(name: str) -> Any:
        def hook(conv: Conv, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            cout, cin, k, _ = conv.weight.shape
            part = name.split(".")[0]
            counts[part] = counts.get(part, 0) + output.shape[2] * output.shape[3] * cout * cin * k * k
        return hook

    hooks = [m.register_forward_hook(count(n)) for n, m in network.named_modules() if isinstance(m, Conv)]
    side = Side.of(torch.tensor([2]), torch.tensor([56.0]))
    p = torch.full((1, 6, height // 2, width // 2), 100.0)
    with torch.inference_mode():
        context = network.context(torch.zeros(1, 48, -(-height // 64), -(-width // 64)), p, p * 0, side)
        local = network.local_step(context)
        v8, features = network.walk(context, lambda step, mean, index: mean)
        network.synthesis(v8, features, p, p * 0, side, local)
    for hook in hooks:
        hook.remove()
    positions = height * width / 64
    counts["linear"] = positions * 96 * 384
    counts["spectrum"] = positions * 96 * 96 * 2
    out = {name: round(n / (height * width) / 1000, 3) for name, n in sorted(counts.items())}
    return out | {"total": round(sum(counts.values()) / (height * width) / 1000, 3)}


@functools.cache
def summary(model: str) -> dict[str, Any]:
    """Of a model: its SHA-256, how many parameters its weights file has, and the decoder's kMAC a pixel."""
    loaded = load_model(model)
    return {"sha256": loaded.sha256, "parameters": sum(tensor.numel() for tensor in loaded.weights.tensors.values()),
            "decoder_kmac_per_pixel": kmac_per_pixel(model, 128, 128)["total"]}
