"""Steps of channels after what MS-SSIM loses by them.

    python -m train.channels OUT.safetensors IN.safetensors --photos DIR [--pictures 24]

An error of one size costs MS-SSIM five times as much in a channel of low frequency as in one of high. Where every
step is to cost alike, a channel's goes with the inverse root of that. Training moves steps too slowly for it, and
ever to the finer (docs/training.md), so they are set at once: what the synthesis makes of a latent in pixels stays,
means and scales of the entropy model follow, and the rest is learned anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from safetensors.torch import load_file, save_file
from torch import Tensor

from nvc.network.network import CHANNELS, FIRST, GROUPS, STEPS, dct_basis
from train.data import SIDE, photograph

ERROR = 4.0             # in each sample of luma, root of the mean square


def luma_of(planes: Tensor) -> Tensor:
    """[B, 1, 2h, 2w] of planes [B, 6, h, w]."""
    return F.pixel_shuffle(planes[:, :4], 2)


def costs(pictures: Tensor, core: Tensor, channels: list[int]) -> Tensor:
    """1 - MS-SSIM of each channel's error of one size in all positions, signs at random; geometric mean over pictures.

    pictures: planes [B, 6, 128, 128]; core [96, 6, 8, 8]: basis of the linear synthesis."""
    luma, result = luma_of(pictures), []
    generator = torch.Generator().manual_seed(0)
    for c in channels:
        signs = torch.zeros(len(pictures), CHANNELS, SIDE // 4, SIDE // 4)
        signs[:, c] = torch.randint(0, 2, signs[:, c].shape, generator=generator) * 2.0 - 1.0
        error = luma_of(F.conv_transpose2d(signs, core, stride=4, padding=2))
        error *= ERROR / error.square().mean((1, 2, 3), keepdim=True).sqrt()
        result.append(torch.log(1.0 - ms_ssim(luma + error, luma, data_range=255, size_average=False)).mean())
    return torch.stack(result).exp()


def with_steps(weights: dict[str, Tensor], wanted: Tensor, channels: list[int]) -> dict[str, Tensor]:
    """Weights whose channels have steps in pixels as wanted [channels] (log) says beside each other, at each type the
    same on average as before."""
    out = {name: tensor.clone() for name, tensor in weights.items()}
    size = out["network.core"].square().sum((1, 2, 3)).sqrt().log()
    longer = torch.zeros(3, CHANNELS)
    for kind in range(3):
        before = (out["network.gain"][kind] + size)[channels]
        longer[kind, channels] = wanted - wanted.mean() + before.mean() - before
        slope = out["network.gain_slope"][kind, channels]
        out["network.gain_slope"][kind, channels] = slope.mean()
        out["analysis.gain_slope"][kind, channels] += slope.mean() - slope
    out["network.gain"] += longer
    out["analysis.gain"] -= longer
    factor = longer.mean(0)
    for step, (group, _) in enumerate(STEPS):
        n, own = GROUPS[group], factor[FIRST[group]:FIRST[group + 1]]
        weight, bias = out[f"network.heads.{step}.1.weight"], out[f"network.heads.{step}.1.bias"]
        for mean in weight.split(n)[::2]:           # of one band after the other, as bias
            mean *= torch.exp(-own)[:, None, None, None]
        for mean, index in zip(bias.split(n)[::2], bias.split(n)[1::2], strict=True):
            mean *= torch.exp(-own)
            index -= 8.0 * own / 0.25               # scale indices go with the log (nvc/network/network.py)
    return out


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out", type=Path)
    a.add_argument("weights", type=Path)
    a.add_argument("--photos", type=Path, required=True)
    a.add_argument("--pictures", type=int, default=24)
    o = a.parse_args()
    weights = load_file(o.weights)
    photos = [photograph(f)[:, :SIDE, :SIDE] for f in sorted(o.photos.glob("*.webp"))[:o.pictures]]
    channels = (dct_basis()[:, 4:].abs().amax((1, 2, 3)) == 0).nonzero()[:, 0].tolist()      # luma's
    with torch.no_grad():
        found = costs(torch.stack([torch.from_numpy(p.copy()) for p in photos]).float(), weights["network.core"],
                      channels)
        save_file(with_steps(weights, -0.5 * found.log(), channels), o.out)


if __name__ == "__main__":
    main()
