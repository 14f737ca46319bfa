"""What each part of the codec gains: trained from the start without it, the same steps and batches.

    python -m train.ablate VARIANT --samples DIR --photos DIR --out FILE.jsonl [--steps 1500] [--threads 1]
    python -m train.ablate --table FILE.jsonl
    python -m train.ablate --rates FILE.jsonl

Appends a row with the Lagrangian J of each picture of a fixed set whose clips are not trained on. The table compares
with "whole": the mean over pictures of the relative change of J, in percent, by type. So few steps tell what learns
fast, not what is best in the end; differences under half a percent say nothing. --rates tells the same by thirds of the
rates, and what a choice for each picture would bring.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import nvc.encoder.analysis
import nvc.encoder.encode
import nvc.network.network
import train.objective
from train import supports
from train.data import Samples
from train.objective import Objective
from train.run import balanced, costs, follow, groups

HELD_OUT = 8            # one clip of so many is for measuring
RATE = 1e-3             # of learning
BALANCED = True         # all rates count alike
AVERAGE = 0.99          # of the weights, a step


class Split(Samples):
    """Samples of clips and photographs that are trained on, or of those that are not."""

    def __init__(self, files: list[Path], photos: Path, seed: int, held: set[str] | None = None) -> None:
        """held: names of the clips to measure on, every HELD_OUT-th if None."""
        super().__init__(files, photos, seed)
        names = [line.split()[3] for f in files for line in f.with_suffix(".txt").read_text().splitlines()]
        self.names = set(sorted(set(names))[::HELD_OUT]) if held is None else held
        self.held = {True: [row for row, name in zip(self.rows, names, strict=False) if name in self.names],
                     False: [row for row, name in zip(self.rows, names, strict=False) if name not in self.names]}
        self.all_photos = self.photos

    def choose(self, measured: bool, seed: int) -> Split:
        """Draw from those that are measured on, or from those that are trained on."""
        self.random.seed(seed)
        self.rows = self.held[measured]
        self.photos = [p for k, p in enumerate(self.all_photos) if (k % HELD_OUT == 0) == measured]
        return self


def structure(**constants: object) -> None:
    """Other constants, functions and classes of the codec, wherever they are known, before networks are made."""
    for module in (nvc.network.network, nvc.encoder.analysis, nvc.encoder.encode, train.objective):
        for name, value in constants.items():
            if hasattr(module, name):
                setattr(module, name, value)


def trainer(**constants: object) -> None:
    """Other constants of this file."""
    globals().update(constants)


def order(sizes: tuple[int, ...], steps: tuple[tuple[int, int | None], ...]) -> None:
    structure(GROUPS=sizes, FIRST=tuple(sum(sizes[:k]) for k in range(len(sizes) + 1)), STEPS=steps)


def alone() -> None:
    """Latents of each position by themselves."""
    structure(BANDS=torch.eye(4))


def wide(hybrid: bool) -> None:
    """Latents at stride 16."""
    alone()
    structure(Network=supports.Wide, Analysis=supports.WideAnalysis, CONTEXT=supports.CONTEXT,
              CHANNELS=sum(supports.GROUPS), dct_basis=lambda: supports.wide_basis(hybrid))
    order(supports.GROUPS, nvc.network.network.STEPS)


def support(side: int) -> Callable[[Objective], None]:
    """Blocks of side × side luma samples, 8 apart, for the linear cores: 8 (DCT), 16 (lapped) or 24."""
    def change(model: Objective) -> None:
        margin = side // 4 - 2
        for part in (model.network, model.analysis):
            part.core = nn.Parameter(F.pad(part.core.data[:, :, 2:6, 2:6], (margin,) * 4))
    return change


def nothing(*_: object) -> None:
    """Leave all as it is."""


def no_core(model: Objective) -> None:
    for core in (model.network.core, model.analysis.core):
        core.requires_grad_(False).zero_()


def no_hyper(model: Objective) -> None:
    hyper_latent = model.analysis.hyper
    model.analysis.hyper = lambda y, side: hyper_latent(y, side) * 0.0


def no_prediction(model: Objective) -> None:
    last = model.network.prior[1]
    last.weight.requires_grad_(False).zero_()


def no_correction(model: Objective) -> None:
    model.network.correction = lambda features, base, p, d, side: torch.zeros_like(p)


WHOLE = (4, 12, 32, 48)
# Name: what is set before the networks are made, what is changed in them.
VARIANTS: dict[str, tuple[Callable[[], None], Callable[[Objective], None]]] = {
    "whole": (nothing, nothing),
    "support 8x8": (nothing, support(8)),
    "support 24x24": (nothing, support(24)),
    "stride 16": (lambda: wide(False), nothing),
    "stride 16, hybrid basis": (lambda: wide(True), nothing),
    "no second transform": (alone, nothing),
    "no linear core": (nothing, no_core),
    "no correction": (nothing, no_correction),
    "no hyperprior": (nothing, no_hyper),
    "no prediction context": (nothing, no_prediction),
    "checkerboard in group 0 only": (lambda: order(WHOLE, ((0, 0), (0, 1), (1, None), (2, None), (3, None))), nothing),
    "last group in two steps": (
        lambda: order(WHOLE, tuple((k, parity) for k in range(4) for parity in (0, 1))), nothing),
    "one group": (lambda: order((96,), ((0, 0), (0, 1))), nothing),
    "groups 24, 24, 24, 24": (
        lambda: order((24,) * 4, ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, None))), nothing),
    "context of 48": (lambda: structure(CONTEXT=48), nothing),
    "context of 160": (lambda: structure(CONTEXT=160), nothing),
    "context of 192": (lambda: structure(CONTEXT=192), nothing),
    "learning rate doubled": (lambda: trainer(RATE=2e-3), nothing),
    "learning rate halved": (lambda: trainer(RATE=5e-4), nothing),
    "rates count as their J": (lambda: trainer(BALANCED=False), nothing),
    "weights not averaged": (lambda: trainer(AVERAGE=0.0), nothing),
}


def trained(variant: str, samples: Samples, steps: int, compiled: bool,
            start: dict[str, Tensor] | None = None) -> Objective:
    """A variant's networks after so many steps, as the average that would be exported.

    start: weights of `Objective` to begin with, of the whole network."""
    before, alter = VARIANTS[variant]
    before()
    torch.manual_seed(0)
    model = Objective()
    alter(model)
    if start:
        model.load_state_dict(start)
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(groups(model, RATE), lr=RATE, betas=(0.9, 0.98))
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    step_of, mean_j = torch.compile(model) if compiled else model, torch.ones(8)
    for step in range(steps):
        for g in optimiser.param_groups:
            g["lr"] = g["base"] * min(1.0, (step + 1) / 100, max(0.02, (steps - step) / (0.4 * steps)))
        model.network.measure()
        batch = samples.batch(1, 3)
        j = costs(step_of, batch)[0]
        loss = balanced(j, batch.t, mean_j).mean() if BALANCED else j.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
            optimiser.step()
        follow(average, model, min(AVERAGE, (step + 1) / (step + 20)))
    model.load_state_dict(average)
    model.network.measure()
    return model


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("variant", nargs="?", choices=VARIANTS)
    a.add_argument("--samples", type=Path)
    a.add_argument("--photos", type=Path)
    a.add_argument("--train-on", type=Path, help="other samples to train on; what is measured on stays")
    a.add_argument("--start", type=Path, help="float weights to begin with, not at random")
    a.add_argument("--name", help="of the row, the variant's if not given")
    a.add_argument("--out", type=Path)
    a.add_argument("--steps", type=int, default=1500)
    a.add_argument("--batches", type=int, default=48, help="measured on, of 2 I pictures and 6 P or B pictures")
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--no-compile", action="store_true")
    a.add_argument("--table", type=Path)
    a.add_argument("--rates", type=Path)
    o = a.parse_args()
    if o.table or o.rates:
        rows = [json.loads(line) for line in (o.table or o.rates).read_text().splitlines()]
        print(table(rows) if o.table else by_rate(rows))
        return
    torch.set_num_threads(o.threads)
    samples = Split(sorted(o.samples.glob("*.bin")), o.photos, 1)
    seen = Split(sorted(o.train_on.glob("*.bin")), o.photos, 1, samples.names) if o.train_on else samples
    began = time.process_time()
    start = load_file(o.start) if o.start else None
    model = trained(o.variant, seen.choose(False, 1), o.steps, not o.no_compile, start)
    kinds: list[int] = []
    ts: list[int] = []
    js: list[float] = []
    with torch.no_grad():
        samples.choose(True, 2)
        for _ in range(o.batches):
            batch = samples.batch(2, 6)
            kinds += batch.kind.tolist()
            ts += batch.t.int().tolist()
            js += costs(model, batch)[0].tolist()
    row = {"variant": o.name or o.variant, "steps": o.steps, "cpu_seconds": round(time.process_time() - began),
           "parameters": sum(p.numel() for p in model.network.parameters()), "kind": kinds, "t": ts,
           "J": [round(j, 4) for j in js]}
    with o.out.open("a") as out:
        out.write(json.dumps(row) + "\n")


def change(row: dict, whole: dict, chosen: list[int]) -> str:
    """Mean relative change of J of some pictures."""
    logs = [math.log(row["J"][k] / whole["J"][k]) for k in chosen]
    return f"{100 * math.expm1(sum(logs) / len(logs)):+.1f} %"


def table(rows: list[dict]) -> str:
    """Markdown: each variant beside "whole"."""
    whole = next(row for row in rows if row["variant"] == "whole")
    lines = ["| variant | parameters of the decoder | I | P | B |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        cells = [change(row, whole, [k for k, v in enumerate(row["kind"]) if v == kind]) for kind in range(3)]
        lines.append(f"| {row['variant']} | {row['parameters'] / 1e6:.2f} million | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_rate(rows: list[dict]) -> str:
    """Markdown: each variant beside "whole", by type and thirds of its pictures in order of their steps, the coarsest
    (low rates) first; and the better of the two, picture by picture: the most that a choice, told for nothing, brings.
    """
    whole = next(row for row in rows if row["variant"] == "whole")
    heads: list[str] = []
    thirds: list[list[int]] = []
    for kind in range(3):
        falling = sorted((k for k, v in enumerate(whole["kind"]) if v == kind), key=lambda k: -whole["t"][k])
        parts = [falling[len(falling) * n // 3:len(falling) * (n + 1) // 3] for n in range(3)]
        heads += [f"{'IPB'[kind]} {whole['t'][part[0]]}…{whole['t'][part[-1]]}" for part in parts]
        thirds += parts
    lines = [f"| variant, at t = | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for row in rows:
        better = {"J": [min(pair) for pair in zip(row["J"], whole["J"], strict=True)]}
        both = [(row["variant"], row), ("… or whole, the better for each picture", better)]
        for name, of in both[: 1 if row is whole else 2]:
            lines.append(f"| {name} | {' | '.join(change(of, whole, part) for part in thirds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
