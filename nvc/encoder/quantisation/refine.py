"""Latents refined by gradient. No decoder runs this.

The greedy choice of symbols weighs each symbol's own rate against its own coefficient's error. It leaves out what a
symbol does to everything else: the lapped neighbours, the networks' correction, the rate of what is coded after it.
That part has a gradient, so the sum of both is descended by proximal steps (Parikh and Boyd 2014, Proximal Algorithms,
section 4.2): the gradient moves the wanted latents, and the greedy choice is the proximal operator of the rest. The
wanted latents go only a share of the way (relaxation: small moves add up until a symbol changes), the symbols chosen
are whole at every pass, and those of least cost are kept. Two passes bring more than half of what a dozen do, where
annealed noise (SGA, Yang et al. 2020, arXiv:2006.04240) takes hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nvc.encoder.quantisation.differentiable import DifferentiableNetwork
from nvc.encoder.quantisation.distortion import Distortion, Squared, Structural
from nvc.network.laplace import Laplace
from nvc.network.linear import LOCAL_BITS
from nvc.network.network import FIRST, STEPS, Side, gather, scatter

SHARE = 0.4             # of the way to where a pass points
BAND, AROUND = 8000, 8  # positions of a band; rows around it that are refined with it and let go
SHORTER = 0.5           # where that makes it worse, it is gone from the best again, by this much shorter


@dataclass
class _Tried:
    """Symbols of a picture: as latents [1, 96, H, W] in steps of their positions, their cost in bits, and the gradient
    (bits for a step) of all but their own rate, if it was asked for; decoded planes [1, 6, h, w]."""

    latents: Tensor
    cost: float
    gradient: Tensor | None
    out: Tensor


class Refinement:
    """One picture: `run` gives latents that stand for symbols.

    x, p: planes of the picture and its prediction, d: difference of the predictions, [1, 6, h, w]; z [1, 48, ..] as
    coded; lambda_scale float32 [96]: λ of the greedy choice, in Δ² of each channel; importance: see `refine`."""

    def __init__(self, network: DifferentiableNetwork, side: Side, x: Tensor, p: Tensor, d: Tensor, z: Tensor,
                 lambda_scale: NDArray[np.float32], importance: NDArray[np.float32],
                 coded: NDArray[np.bool_] | None = None) -> None:
        self.network, self.side, self.x, self.p, self.d = network, side, x, p, d
        self.coded = None if coded is None else torch.from_numpy(coded).to(x.device)[None, None]
        with torch.no_grad():
            self.context = network.context(z, p, d, side)
            self.local = network.local_step(self.context)
            # Weights whose positions have steps of their own (docs/decisions, 6) are for MS-SSIM.
            measure = Squared if network.alike else Structural
            self.distortion: Distortion = measure(network, side, x, self.local, lambda_scale, importance)
            # Each position's own step in those of the picture, exactly as the decoder has it.
            index = self.local.to(torch.int32).cpu().numpy()
            self.steps = torch.from_numpy(network.local_steps(index)).to(self.local) / (1 << LOCAL_BITS)

    def attempt(self, wanted: Tensor, share: float = 1.0, descend: bool = False) -> _Tried:
        """Choose symbols for latents wanted, [1, 96, H, W] in steps of their positions, and see what they cost.

        share: of the price of their own rate, at which they are chosen; descend: find the gradient, too."""
        price = 2.0 * share / self.distortion.curvature
        leaves: list[Tensor] = []
        bits: list[Tensor] = []

        def visit(step: int, mean: Tensor, index: Tensor) -> Tensor:
            group, parity = STEPS[step]
            channels = slice(FIRST[group], FIRST[group + 1])
            prior, coded = Laplace.of(index), index > 0
            if self.coded is not None:
                coded = coded & gather(self.coded, parity)
            with torch.no_grad():
                error = gather(wanted[:, channels], parity) - mean / 8.0
                v8 = 8.0 * prior.quantise(error, gather(price[:, channels], parity)) * coded + mean
            leaf = v8.detach().requires_grad_(descend)
            leaves.append(leaf)
            # Their own rate is the greedy choice's part: here only what the context before them does to it.
            bits.append((prior.line((v8.detach() - mean).abs() / 8.0) * coded).sum())
            return leaf

        v8, features = self.network.walk(self.context, visit)
        out = self.network.synthesis(v8, features, self.p, self.d, self.side, self.local)
        cost = self.distortion.bits(out) + torch.stack(bits).sum()
        gradient = None
        if descend:
            found = torch.autograd.grad(cost, leaves)
            parts = [scatter(g, parity) for g, (_, parity) in zip(found, STEPS, strict=True)]
            gradient = 8.0 * torch.cat([parts[0] + parts[1], parts[2] + parts[3], parts[4] + parts[5], parts[6]], 1)
        return _Tried(v8.detach() / 8.0, cost.item(), gradient, out.detach())

    def run(self, y: Tensor, passes: int) -> Tensor:
        """Latents that are symbols, in steps of the picture, from those that analysis gave."""
        wanted = y / self.steps
        best = self.attempt(wanted, descend=passes > 0)
        share = SHARE
        for left in reversed(range(passes)):
            assert best.gradient is not None
            moved = wanted.lerp(best.latents - best.gradient / self.distortion.curvature, share)
            tried = self.attempt(moved, descend=left > 0)
            if tried.cost < best.cost:
                best, wanted = tried, moved
            else:
                share *= SHORTER
        return best.latents * self.steps


@torch.inference_mode(False)
@torch.enable_grad()
def refine(network: DifferentiableNetwork, kind: int, t: int, x: NDArray[np.uint8], p: NDArray[np.uint8],
           d: NDArray[np.int16], y: NDArray[np.float32], z: NDArray[np.int32], lambda_scale: NDArray[np.float32],
           importance: NDArray[np.float32], passes: int, coded: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Latents [H, W, 96] of one picture, in steps, that are symbols already: to be coded without lambda_scale.

    x, p, d: planes [6, h, w], see `Refinement`; y [H, W, 96], z [.., .., 48]: as analysed; kind, t: see `Side`;
    passes: through the networks and back, after the first; importance [H, W]: what errors of positions count;
    coded [H, W]: which positions have symbols, None: all.

    A large picture is refined in bands, so that memory stays bounded."""
    made = np.empty_like(y)
    for top, bottom in bands_of(*y.shape[:2]):
        first, last = max(top - AROUND, 0), bottom + AROUND         # rows that the networks see
        rows, samples, blocks = slice(first, last), slice(4 * first, 4 * last), slice(first // 8, -(-last // 8))
        near = _refined(network, kind, t, x[:, samples], p[:, samples], d[:, samples], y[rows], z[blocks],
                        lambda_scale, importance[rows], passes, None if coded is None else coded[rows])
        made[top:bottom] = near[top - first:bottom - first]
    return made


def bands_of(rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows of positions that are refined at a time: multiples of 8, which the hyper-latent's positions are."""
    bands = max(1, round(rows * columns / BAND))
    ends = [min(-(-rows * k // (8 * bands)) * 8, rows) for k in range(bands + 1)]
    return [(a, b) for a, b in pairwise(ends) if a < b]


def _refined(network: DifferentiableNetwork, kind: int, t: int, x: NDArray[np.uint8], p: NDArray[np.uint8],
             d: NDArray[np.int16], y: NDArray[np.float32], z: NDArray[np.int32], lambda_scale: NDArray[np.float32],
             importance: NDArray[np.float32], passes: int, coded: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    def tensor(a: NDArray) -> Tensor:
        return torch.from_numpy(a).to(network.device).float()[None]

    source, prediction, difference = (tensor(v).contiguous(memory_format=torch.channels_last) for v in (x, p, d))
    wanted, hyper_latent = (tensor(v).permute(0, 3, 1, 2) for v in (y, z))
    side = Side.of(torch.tensor([kind]), torch.tensor([float(t)])).to(network.device)
    refinement = Refinement(network, side, source, prediction, difference, hyper_latent, lambda_scale, importance,
                            coded)
    latents = refinement.run(wanted, passes)
    return latents[0].permute(1, 2, 0).contiguous().cpu().numpy()
