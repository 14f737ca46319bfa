"""Training loop.

    python -m train.run --out train/run --samples DIR --photos DIR --minutes M [--resume float.safetensors]

Resumable at any time: DIR/state.pt holds weights, averages and optimiser; `float.safetensors` is the average, which is
what gets exported and committed. The learning rate is constant and falls over the last third of the minutes given.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nvc.network.fixed_point import context_of
from train.data import Batch, Samples
from train.objective import Objective, lagrangian
from train.widen import widened


def groups(model: Objective, rate: float) -> list[dict]:
    """Parameter groups: the linear cores move slowly, scale indices (whole numbers up to 63) fast."""
    slow = {id(model.network.core), id(model.analysis.core)}
    fast = {id(model.network.z_scale), id(model.network.z_slope)}
    # The size of a step stays: a finer one would evade the price of symbols, which is in steps, and run away.
    fixed = {id(model.network.gain), id(model.network.gain_slope)}
    if model.measure == "psnr":     # squared error counts alike everywhere
        fixed |= {id(p) for p in model.network.local.parameters()}
    rest = [p for p in model.parameters() if id(p) not in slow | fast | fixed]
    return [{"params": rest, "base": rate},
            {"params": [model.network.core, model.analysis.core], "base": rate * 0.05},
            {"params": [model.network.z_scale, model.network.z_slope], "base": rate * 20}]


def costs(model: Callable[..., tuple[Tensor, Tensor, Tensor]], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Of each picture of a batch: Lagrangian J, bits of latents and of hyper-latents, [B]."""
    with torch.autocast("cpu", torch.bfloat16):
        y_bits, z_bits, distortion = model(batch.x, batch.p0, batch.p1, batch.kind, batch.t)
    return lagrangian(y_bits + z_bits, distortion, batch.kind, batch.t, 256 * 256), y_bits, z_bits


def balanced(j: Tensor, t: Tensor, mean_j: Tensor) -> Tensor:
    """J [B] of pictures at steps t, weighed so that all rates count alike: by the geometric mean of its own and its
    octave's. mean_j [8]: of octaves, moved on."""
    octave = (t / 16).long()
    with torch.no_grad():
        for k, v in zip(octave.tolist(), j.tolist(), strict=True):
            mean_j[k] += 0.01 * (v - mean_j[k])
        weight = (mean_j[octave] * (j + 0.02)).rsqrt()
    return j * weight


@torch.no_grad()
def follow(average: dict[str, Tensor], model: Objective, keep: float) -> None:
    """Move the average of weights towards the model's, by all but that share."""
    for k, v in model.state_dict().items():
        average[k].lerp_(v, 1 - keep)


class Peer:
    """Two runs on a core each, kept together: every so often each moves towards the other's latest weights, by half
    of the other's share of the steps that were made since (elastic averaging, Zhang et al. 2015, arXiv:1412.6651).
    Unlike threads that share a step, neither waits when its core has other work."""

    def __init__(self, own: Path, other: Path, step: int) -> None:
        self.own, self.other = own / "peer.pt", other / "peer.pt"
        self.step, self.other_step = step, None

    def meet(self, model: torch.nn.Module, step: int) -> None:
        weights = dict(model.named_parameters())
        part = self.own.with_suffix(".part")
        torch.save({"step": step, "weights": {k: v.detach() for k, v in weights.items()}}, part)
        part.replace(self.own)
        if not self.other.exists():
            return
        there = torch.load(self.other)
        new = there["step"] - (there["step"] if self.other_step is None else self.other_step)
        pull = 0.5 * new / max(1, new + step - self.step)
        with torch.no_grad():
            for k, v in weights.items():
                v.lerp_(there["weights"][k], pull)
        self.step, self.other_step = step, there["step"]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--samples", type=Path, required=True)
    a.add_argument("--photos", type=Path, required=True)
    a.add_argument("--minutes", type=float, required=True)
    a.add_argument("--rate", type=float, default=1e-3)
    a.add_argument("--intra", type=int, default=2)
    a.add_argument("--inter", type=int, default=6)
    a.add_argument("--resume", type=Path)
    a.add_argument("--context", type=int,
                   help="channels of the running context; weights that are resumed are widened to it")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--measure", choices=("psnr", "ms_ssim"), default="psnr", help="what distortion is")
    a.add_argument("--peer", type=Path, help="folder of another run on another core: the two meet every 100 steps")
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    before = load_file(o.resume) if o.resume else {}
    context = o.context or (context_of(before, "network.") if before else None)
    model = Objective(o.measure, context).to(memory_format=torch.channels_last)
    if before:
        new = model.state_dict()
        model.load_state_dict({name: widened(tensor, new[name]) for name, tensor in before.items()})
    optimiser = torch.optim.Adam(groups(model, o.rate), lr=o.rate, betas=(0.9, 0.98))
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    start, spent, worked = 0, 0.0, 0.0
    state = o.out / "state.pt"
    if state.exists():
        s = torch.load(state)
        model.load_state_dict(s["model"])
        optimiser.load_state_dict(s["optimiser"])
        average, start, spent, worked = s["average"], s["step"], s["seconds"], s["cpu_seconds"]
    samples = Samples(sorted(o.samples.glob("*.bin")), o.photos, o.seed + start)
    step_of = torch.compile(model)
    ahead = ThreadPoolExecutor(1)
    following = ahead.submit(samples.batch, o.intra, o.inter)
    mean_j = torch.full((8,), 1.0)
    log = (o.out / "log.jsonl").open("a")
    peer = Peer(o.out, o.peer, start) if o.peer else None
    began, step = time.monotonic(), start
    window: list[torch.Tensor] = []

    def times() -> dict[str, float]:
        return {"seconds": spent + time.monotonic() - began, "cpu_seconds": worked + time.process_time()}

    def save() -> None:
        save_file({k: v.contiguous() for k, v in average.items()}, o.out / "float.safetensors")
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step,
                    **times()}, o.out / "state.tmp")
        (o.out / "state.tmp").replace(state)

    while (share := (spent + time.monotonic() - began) / 60 / o.minutes) < 1:
        factor = min(1.0, (step + 1) / 200) * (1.0 if share < 0.6 else max(0.01, (1 - share) / 0.4))
        for g in optimiser.param_groups:
            g["lr"] = g["base"] * factor
        model.network.measure()
        batch, following = following.result(), ahead.submit(samples.batch, o.intra, o.inter)
        j, y_bits, z_bits = costs(step_of, batch)
        weighed = balanced(j, batch.t, mean_j)
        loss = weighed.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        step += 1
        follow(average, model, min(0.999, (step + 1) / (step + 20)))
        window.append(torch.stack([weighed.detach(), (y_bits + z_bits).detach() / 65536, z_bits.detach() / 65536,
                                   batch.kind.float(), j.detach()]))
        if step % 200 == 0:
            w = torch.cat(window, 1)
            by = {n: round(w[4][w[3] == k].mean().item(), 4) for k, n in enumerate("IPB")}
            row = {"step": step, **{k: round(v) for k, v in times().items()}, "J": by,
                   "bpp": round(w[1].mean().item(), 4), "z_bpp": round(w[2].mean().item(), 5),
                   "norm": round(norm.item(), 3), "lr": optimiser.param_groups[0]["lr"]}
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            window = []
        if peer and step % 100 == 0:
            peer.meet(model, step)
        if step % 500 == 0:
            save()
    save()
    ahead.shutdown()


if __name__ == "__main__":
    main()
