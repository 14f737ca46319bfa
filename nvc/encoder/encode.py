"""The encoder: batches of pictures in, packets out. Float where no decoder repeats it; pictures come from
`decode.reconstruct`. nvc/encoder/gop.py and nvc/encoder/clip.py say which batches.

    batch of one level ─► motion ─► latents ─► symbols ─► packets
                            ▲                     │
                            └── decoded pictures ◄┘

Memory is bounded by the mini-GOP: pictures waiting to be coded, and those that later ones refer to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from coding.interface import Settings
from nvc.decoder import Clock, Frame, Moved, reconstruct, references_of, side_of, spans_of
from nvc.encoder import tile_choice
from nvc.encoder.analysis import Analysis
from nvc.encoder.effort import EFFORT_MAX, EFFORT_MIN, EFFORTS
from nvc.encoder.quantisation import quantise
from nvc.encoder.quantisation.differentiable import DifferentiableNetwork
from nvc.encoder.quantisation.refine import refine
from nvc.encoder.search import motion_field as search
from nvc.encoder.search import pyramid_search
from nvc.encoder.search.weight_estimation import weigh
from nvc.encoder.sources.propagation import Importance
from nvc.encoder.sources.structure import STRUCTURES, Unit
from nvc.entropy import range_coder
from nvc.loop_filter.filter import write_use
from nvc.machine.parallel import each, shares
from nvc.motion import vectors
from nvc.motion.prediction import MotionField, Reference, predict
from nvc.motion.weighting import Weight
from nvc.network import hyper_latent
from nvc.network.model import Model
from nvc.network.network import FIRST, STEPS, T_MAX, TYPES, Side, dct_basis, first_joined
from nvc.network.planes import pack, predictions, unpack
from nvc.stream.errors import SettingsError
from nvc.stream.syntax import Packet
from nvc.tiles.kinds import NETWORK, Kinds
from nvc.tiles.pieces import POSITIONS, Pieces, pieces_of, write_tiles
from video.picture import Picture

QUALITY_MAX = 63
JOBS_MAX = 64
T_COARSEST, T_FINEST = 92, 0            # step indices of qualities 0 and 63: Δ = 54 … 1
LAMBDA_SCALE = {"I": 0.12, "P": 0.26, "B": 0.48}   # λ of quantisation in Δ²: less in pictures that others copy
# Where I pictures have a finer step than T_MIDDLE, lambda_scale falls and levels lie further apart, by these shares at
# the finest (docs/decisions, 15).
T_MIDDLE, LAMBDA_FALL, WIDER = 50.0, 0.45, 0.3
# Vectors of a coarser level are priced at λ of a step finer by this share of the level's offset: what they bring is
# seldom corrected there.
MOTION_FINER = 0.1
# Weights whose positions have steps of their own (docs/decisions, 6) want levels that much further apart, and all steps
# that much finer, for a quality to stand for a like rate: most of their positions hide errors and have coarser ones.
SPREAD_UNALIKE, FINER_UNALIKE = 1.2, 12.0
CHROMA_LAMBDA = 0.5                             # of that for chroma, whose errors count more (train/objective.py)
WIDE = 16                                       # sides of the latents from which the hyper-analysis may use bfloat16
_analyses: dict[str, Analysis] = {}
_differentiable: dict[str, DifferentiableNetwork] = {}


def fineness(t: float) -> float:
    """How far step index t of I pictures is on the way from T_MIDDLE to the finest, 0 … 1."""
    return min(max(1.0 - t / T_MIDDLE, 0.0), 1.0)


@cache
def _chroma_share() -> NDArray[np.float64]:
    """CHROMA_LAMBDA for the channels of chroma [CHANNELS], 1 for those of luma."""
    chroma = dct_basis()[:, 4:].abs().amax((1, 2, 3)).numpy() > 0
    return np.where(chroma, CHROMA_LAMBDA, 1.0)


def lambda_scale_of(kind: str, fine: float = 0.0) -> NDArray[np.float32]:
    """λ of quantisation in Δ² of each channel [CHANNELS] in pictures of a type; fine: see `fineness`."""
    return (LAMBDA_SCALE[kind] * (1.0 - LAMBDA_FALL * fine) * _chroma_share()).astype(np.float32)


def step_index(quality: int) -> int:
    """Step index t of an I picture at quality 0 … 63."""
    return round(T_COARSEST - quality * (T_COARSEST - T_FINEST) / QUALITY_MAX)


def check(settings: Settings) -> None:
    """SettingsError names the setting that is out of its range."""
    if not 0 <= settings.quality <= QUALITY_MAX:
        raise SettingsError(f"quality is {settings.quality}, expected 0…{QUALITY_MAX}")
    if settings.effort not in EFFORTS:
        raise SettingsError(f"effort is {settings.effort}, expected {EFFORT_MIN}…{EFFORT_MAX}")
    if settings.structure not in STRUCTURES:
        raise SettingsError(f"structure is {settings.structure!r}, expected one of {', '.join(STRUCTURES)}")
    if settings.intra_period < 1:
        raise SettingsError(f"intra_period is {settings.intra_period}, expected at least 1")
    if unknown := sorted(settings.options.keys() - {"jobs"}):
        raise SettingsError(f"options.{unknown[0]}: nvc has jobs")
    jobs = settings.options.get("jobs", 1)
    if type(jobs) is not int or not 1 <= jobs <= JOBS_MAX:
        raise SettingsError(f"options.jobs is {jobs!r}, expected 1…{JOBS_MAX}")


def jobs_of(settings: Settings) -> int:
    """Processes that may code GOPs at the same time; each is one thread, so `threads` bounds them where it is set."""
    return min(settings.options.get("jobs", 1), settings.threads or JOBS_MAX)


def analysis_of(model: Model) -> Analysis:
    """The encoder's networks of a model, made once."""
    if model.sha256 not in _analyses:
        analysis = Analysis()
        prefix = "analysis."
        analysis.load_state_dict({k.removeprefix(prefix): v.float() for k, v in model.weights.tensors.items()
                                  if k.startswith(prefix)})
        for parameter in analysis.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        _analyses[model.sha256] = analysis.to(model.network.device).eval().requires_grad_(False)
    return _analyses[model.sha256]


def differentiable_of(model: Model) -> DifferentiableNetwork:
    """The network of a model with gradients, made once."""
    if model.sha256 not in _differentiable:
        _differentiable[model.sha256] = DifferentiableNetwork(model.weights, model.network.device)
    return _differentiable[model.sha256]


@dataclass
class Tally:
    """What was spent: bits by part over the clip, and seconds."""

    bits: dict[str, int] = field(default_factory=lambda: {"motion": 0, "tiles": 0, "hyper": 0, "latents": 0})
    clock: Clock = field(default_factory=Clock)
    counted: dict[range_coder.Encoder, int] = field(default_factory=dict)   # bytes that a part has got already

    def spend(self, part: str, coders: Sequence[range_coder.Encoder]) -> None:
        """Count for a part what coders have written since they were last counted."""
        for coder in coders:
            self.bits[part] += 8 * (coder.size - self.counted.get(coder, 0))
            self.counted[coder] = coder.size

    def add(self, other: Tally) -> None:
        """Count what another spent, too."""
        for part, bits in other.bits.items():
            self.bits[part] += bits
        self.clock.add(other.clock)


class SymbolWriter:
    """Chooses and writes the symbols of pieces of pictures, each into its picture's coder."""

    def __init__(self, coders: list[range_coder.Encoder], pieces: Pieces, tables: range_coder.Tables,
                 bits: NDArray[np.float32], lambda_scale: list[NDArray[np.float32]],
                 importance: list[NDArray[np.float32]], tally: Tally) -> None:
        self.coders, self.pieces, self.tables, self.bits = coders, pieces, tables, bits
        self.lambda_scale, self.importance, self.tally = lambda_scale, importance, tally

    def hyper(self, z: NDArray[np.int32], index: NDArray[np.int32], side: Side) -> None:
        """Write the hyper-latents, before all else."""
        with self.tally.clock.part("entropy"):
            for coder, s, i, kind in zip(self.coders, z, index, side.kind.tolist(), strict=True):
                hyper_latent.write(coder, s, i, kind, self.tables)

    def put(self, symbols: NDArray[np.int32], index: NDArray[np.int32]) -> None:
        with self.tally.clock.part("entropy"):
            for coder, s, i in zip(self.coders, symbols, index, strict=True):
                coder.put(s, i, self.tables)

    def code(self, y: NDArray[np.float32], step: int, mean: NDArray[np.int32], index: NDArray[np.int32],
             local: NDArray[np.int32]) -> NDArray[np.int32]:
        """One step of the traversal: choose symbols by D + λR and write them. y: wanted latents, [B, H, W, 96]."""
        group, parity = STEPS[step]
        index = self.pieces.only_coded(index, step)
        symbols = np.empty(mean.shape, np.int32)
        with self.tally.clock.part("quantise"):
            for k, (lambda_scale, importance) in enumerate(zip(self.lambda_scale, self.importance, strict=True)):
                quantise.choose(y[k], local[k], FIRST[group], 2 if parity is None else parity, mean[k], index[k],
                                lambda_scale, importance, self.bits, self.tables.radius, symbols[k])
        self.put(symbols, index)
        return symbols


class Encoder:
    """Codes the batches of one clip; `frames` holds the decoded pictures that may still be referred to, `importance`
    the weight of errors in each picture, by number (see propagation.py; without one, that of a usual picture at its
    level, the same everywhere).

    observe(unit, padded picture, its two predictions): called for each coded picture where set; trials and training
    learn from it."""

    def __init__(self, model: Model, settings: Settings, t: float, slack: float = 0.0) -> None:
        """t: step index of I pictures, may have a fraction; slack: by how much of it symbols are chosen as for a
        coarser step, while the step stays."""
        self.model, self.settings, self.t, self.slack = model, settings, t, slack
        self.fine = fineness(t)
        self.network, self.analysis = model.network, analysis_of(model)
        self.fast = "bfloat16" in self.network.kernels.values()
        self.slot_bits = model.network.tables.bits()
        self.effort = EFFORTS[settings.effort]
        self.search = self.effort.searches[-1]
        i, p, b = self.effort.passes
        self.passes = {"I": b if settings.structure == "intra" else i, "P": p, "B": b}
        self.differentiable = differentiable_of(model) if any(self.passes.values()) else None
        self.tally = Tally()
        self.frames: dict[int, Frame] = {}
        self.importance: dict[int, Importance] = {}
        self.observe: Callable[[Unit, Picture, tuple[Picture, Picture] | None], None] | None = None

    def fork(self, search: int) -> Encoder:
        """An encoder that goes on from here by itself, at the usual steps of levels, and does not refine latents; both
        count the same seconds.

        search: how far it searches motion."""
        other = copy.copy(self)
        other.search, other.differentiable, other.importance = search, None, {}
        other.frames, other.tally = dict(self.frames), Tally(dict(self.tally.bits), self.tally.clock)
        return other

    def q(self, unit: Unit) -> int:
        """Step index of a unit. A fraction of t is spread over the pictures by the golden ratio's multiples."""
        dither = (unit.number * 0.6180339887498949) % 1.0
        return min(max(math.floor(self.t + self.offset(unit) + dither), 0), T_MAX)

    def wanted(self, unit: Unit) -> float:
        """Step index that a unit would have if it needed not be whole, and what it is to cost and to lose."""
        return min(max(self.t + self.slack + self.offset(unit), 0.0), T_MAX)

    def step(self, unit: Unit) -> float:
        """Size of a unit's step, as `wanted`, in luma samples."""
        return 2.0 ** (self.wanted(unit) / 16.0)

    def offset(self, unit: Unit) -> float:
        """What to add to t for a unit: by its level, and as it is copied more or less than is usual there."""
        importance = self.importance.get(unit.number)
        by_level = unit.step_offset * (1.0 + WIDER * self.fine)
        if not self.network.alike:
            by_level = SPREAD_UNALIKE * by_level - FINER_UNALIKE
        return by_level + (importance.offset if importance else 0.0)

    def lambda_scale(self, unit: Unit) -> NDArray[np.float32]:
        """`lambda_scale_of` a unit, more or less by what its whole step index lacks or has too much: rate and PSNR then
        follow t without the jumps that an I picture's next step would make. The exponent makes up for one in PSNR."""
        missing = self.wanted(unit) - self.q(unit)
        return lambda_scale_of(unit.type, self.fine) * np.float32(2.0 ** (5 * missing / 16.0))

    def weights(self, unit: Unit, picture: Picture) -> tuple[Weight, ...]:
        """Weights of the references of a P or B picture, if it is to have any."""
        current = pyramid_search.pyramid(picture.y)
        reaches = [pyramid_search.reach_of(unit.number - n) for n in unit.references]
        return weigh(current, [self.frames[n].reference.pyramid for n in unit.references], reaches, self.step(unit))

    def motion(self, unit: Unit, picture: Picture, references: Sequence[Reference],
               coder: range_coder.Encoder) -> MotionField:
        """Search and code the motion of a P or B picture."""
        spans = spans_of(unit.number, unit.references)
        weight = 2.0 ** (-2 * MOTION_FINER * self.offset(unit) / 16.0)
        found = search.search(picture.y, references, spans, 2.0 ** (self.q(unit) / 16.0), weight, self.search,
                              None if self.search else self.effort.enough)
        return vectors.encode_field(coder, found, references)

    def analyse(self, x: NDArray[np.uint8], p: NDArray[np.uint8],
                side: Side) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Latents y [B, H, W, 96] (steps, before quantisation) and hyper-latent z [B, .., .., 48] (rounded)."""
        device, there = self.network.device, side.to(self.network.device)
        residual = torch.from_numpy(np.subtract(x, p, dtype=np.int16)).to(device).float()
        y = self.analysis.transform(residual.contiguous(memory_format=torch.channels_last), there)
        # oneDNN's bfloat16 kernels return garbage for 5×5 kernels on grids one or two wide.
        with torch.autocast(device.type, torch.bfloat16, enabled=self.fast and min(y.shape[2:]) >= WIDE):
            wanted = self.analysis.hyper(y, there)
        z = hyper_latent.choose(wanted, self.network.z_index(there).to(wanted))
        grids = [v.permute(0, 2, 3, 1).contiguous().cpu() for v in (first_joined(y), z)]
        return grids[0].float().numpy(), grids[1].to(torch.int32).numpy()

    def encode(self, batch: list[tuple[Unit, Picture]]) -> Iterator[Packet]:
        """Packets of units that do not refer to each other, their padded pictures given."""
        with self.tally.clock.part("motion"):
            each(Reference.prepare, [self.frames[n].reference for n in {n for u, _ in batch for n in u.references}])
            moved = each(self._predict, batch)
        with self.tally.clock.part("network"):
            work = [(unit, picture, found) for (unit, picture), found in zip(batch, moved, strict=True)]
            parts = shares(work, batch[0][1].y.size) if self.network.device.type == "cpu" else [work]
            made = each(self._code, parts)
        for part, (packets, frames, tally) in zip(parts, made, strict=True):
            self.tally.add(tally)
            for (unit, picture, found), packet, frame in zip(part, packets, frames, strict=True):
                self.frames[unit.number] = frame
                if self.observe:
                    self.observe(unit, picture, found.pair)
                yield packet

    def _predict(self, item: tuple[Unit, Picture]) -> Moved[range_coder.Encoder]:
        unit, picture = item
        coder = range_coder.Encoder()
        if not unit.references:
            return Moved(coder)
        weights = self.weights(unit, picture)
        references = references_of(self.frames, unit.references, weights)
        field = self.motion(unit, picture, references, coder)
        return Moved(coder, field, predict(field, references), weights)

    @torch.inference_mode()
    def _code(self, work: Sequence[tuple[Unit, Picture, Moved[range_coder.Encoder]]]
              ) -> tuple[list[Packet], list[Frame], Tally]:
        units, pictures, moved = zip(*work, strict=True)
        tally = Tally()
        coders = [found.coder for found in moved]
        tally.spend("motion", coders)
        planes, d = predictions([found.pair for found in moved], *pictures[0].y.shape)
        with tally.clock.part("tiles"):
            kinds = [self._write_tiles(unit, coder, picture, p, difference)
                     for unit, coder, picture, p, difference in zip(units, coders, pictures, planes, d, strict=True)]
        tally.spend("tiles", coders)
        x = [pack(picture) for picture in pictures]
        for pieces in pieces_of(kinds):
            own = [units[k] for k in pieces.pictures]
            decoded = self._code_pieces(own, pieces, [coders[k] for k in pieces.pictures], pieces.cut(x),
                                        pieces.cut(planes), pieces.cut(d), tally)
            pieces.paste(decoded, planes)
        made = [unpack(own) for own in planes]
        if self.model.loop_filter:
            with tally.clock.part("loop filter"):
                made = [self._filtered(unit, coder, picture, own, tiles == NETWORK)
                        for unit, coder, picture, own, tiles in zip(units, coders, pictures, made, kinds, strict=True)]
        payloads = [coder.finish() for coder in coders]
        tally.spend("latents", coders)
        packets = [Packet(unit.number, unit.type, unit.references, self.q(unit), payload, weights=found.weights)
                   for unit, payload, found in zip(units, payloads, moved, strict=True)]
        return packets, [Frame.of(own, found.field) for own, found in zip(made, moved, strict=True)], tally

    def _filtered(self, unit: Unit, coder: range_coder.Encoder, source: Picture, made: Picture,
                  coded: NDArray[np.bool_]) -> Picture:
        """What was made of a picture, filtered where that brings it nearer to the source; whether it is, is coded."""
        if not coded.any():
            return made
        assert self.model.loop_filter
        made, use = self.model.loop_filter.chosen(made, source, coded, TYPES[unit.type], self.q(unit))
        write_use(coder, use)
        return made

    def _write_tiles(self, unit: Unit, coder: range_coder.Encoder, picture: Picture, p: NDArray[np.uint8],
                     d: NDArray[np.int16]) -> Kinds:
        step = 2.0 ** (self.q(unit) / 16.0)
        price = float(self.lambda_scale(unit)[0]) * step * step
        kinds = tile_choice.choose(picture, unpack(p), step, price, self.effort.quiet_error)
        write_tiles(coder, kinds, picture, p, d)
        return kinds

    def _code_pieces(self, units: Sequence[Unit], pieces: Pieces, coders: list[range_coder.Encoder],
                     x: NDArray[np.uint8], p: NDArray[np.uint8], d: NDArray[np.int16],
                     tally: Tally) -> NDArray[np.uint8]:
        """Code regions of pictures, one of each unit; -> their decoded planes. x, p, d [n, 6, h, w]: source, prediction
        and difference of the predictions there."""
        side = side_of([u.type for u in units], [self.q(u) for u in units])
        lambda_scale = [self.lambda_scale(u) for u in units]
        y, z = self.analyse(x, p, side)
        importance = [np.ascontiguousarray(self.importance[u.number].grid[region.slices(POSITIONS)])
                      if u.number in self.importance else np.ones(y.shape[1:3], np.float32)
                      for u, region in zip(units, pieces.regions, strict=True)]
        positions = pieces.positions
        for k, unit in enumerate(units):
            if self.differentiable and (passes := self.passes[unit.type]):
                with tally.clock.part("refine"):
                    y[k] = refine(self.differentiable, TYPES[unit.type], self.q(unit), x[k], p[k], d[k], y[k], z[k],
                                  lambda_scale[k], importance[k], passes, positions[k])
                lambda_scale[k] = np.zeros_like(lambda_scale[k])    # they are symbols now, and stay what they are
        writer = SymbolWriter(coders, pieces, self.network.tables, self.slot_bits, lambda_scale, importance, tally)
        writer.hyper(z, hyper_latent.index_of(self.network, side, *pieces.size), side)
        tally.spend("hyper", coders)
        made = reconstruct(self.network, side, p, d, z, partial(writer.code, y))
        tally.spend("latents", coders)
        return made
