"""The decoder: packets in, pictures out. Everything reachable from here is normative; see nvc/network/fixed_point.py
for exactness.

`reconstruct` is the one way that planes are made from latents: the encoder calls it too, with a `visit` that chooses
symbols where the decoder's reads them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nvc.entropy import range_coder
from nvc.loop_filter.filter import LoopFilter, read_use
from nvc.machine.parallel import each, shares
from nvc.motion import vectors
from nvc.motion.prediction import MotionField, Reference, predict
from nvc.motion.weighting import Weight
from nvc.network import cpu_reconstruction, hyper_latent
from nvc.network.fixed_point import FixedNetwork
from nvc.network.model import Model
from nvc.network.network import TYPES, Side
from nvc.network.planes import crop, predictions, unpack
from nvc.stream.errors import BitstreamError
from nvc.stream.reading import Stream
from nvc.stream.syntax import FIRST_WITH_TILES, Header, Packet
from nvc.tiles.kinds import NETWORK, TILE
from nvc.tiles.pieces import Pieces, pieces_of, read_tiles
from video.picture import Picture

BATCH = 4                       # pictures at once, at most; more gain little and cost memory


@dataclass
class Frame:
    """A decoded picture, padded, ready to be predicted from."""

    picture: Picture
    reference: Reference

    @staticmethod
    def of(picture: Picture, field: MotionField | None) -> Frame:
        return Frame(picture, Reference(picture, field))


class Clock:
    """Seconds by part of the work."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def add(self, other: Clock) -> None:
        """Count what another measured, too."""
        for name, seconds in other.seconds.items():
            self.seconds[name] += seconds

    def rounded(self) -> dict[str, float]:
        return {name: round(s, 4) for name, s in sorted(self.seconds.items())}


def side_of(types: list[str], steps: list[int]) -> Side:
    """Side information of a batch, from packets' types and step indices."""
    return Side.of(torch.tensor([TYPES[t] for t in types]), torch.tensor([float(q) for q in steps]))


def reconstruct(network: FixedNetwork, side: Side, p: NDArray[np.uint8], d: NDArray[np.int16], z: NDArray[np.int32],
                visit: cpu_reconstruction.Visit) -> NDArray[np.uint8]:
    """Decoded planes uint8 [B, 6, h, w] of a batch; see `cpu_reconstruction.reconstruct`, whose numbers every device
    gives."""
    way = cpu_reconstruction.reconstruct if network.device.type == "cpu" else cpu_reconstruction.in_tensors
    return way(network, side, p, d, z, visit)


Coder = TypeVar("Coder", range_coder.Encoder, range_coder.Decoder)


@dataclass(frozen=True)
class Moved(Generic[Coder]):
    """Motion of a picture and both predictions, none of an I picture. It is in coder, where symbols follow; weights, if
    any, are those of its references."""

    coder: Coder
    field: MotionField | None = None
    pair: tuple[Picture, Picture] | None = None
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class _Symbols:
    """Reads the symbols of pieces of pictures, each from its picture's own coder.

    check: looks at every step whether the bytes are over: a stream of a few bytes must not cost a pass of all
    networks."""

    network: FixedNetwork
    pieces: Pieces
    coders: list[range_coder.Decoder]
    check: Callable[[str], None]
    clock: Clock

    def hyper(self, side: Side, index: NDArray[np.int32]) -> NDArray[np.int32]:
        tables = self.network.tables
        with self.clock.part("entropy"):
            read = np.stack([hyper_latent.read(c, i, kind, tables)
                             for c, i, kind in zip(self.coders, index, side.kind.tolist(), strict=True)])
        self.check("latents")
        return read

    def visit(self, step: int, mean: NDArray[np.int32], index: NDArray[np.int32],
              local: NDArray[np.int32]) -> NDArray[np.int32]:
        index = self.pieces.only_coded(index, step)
        with self.clock.part("entropy"):
            read = np.stack([c.get(i, self.network.tables) for c, i in zip(self.coders, index, strict=True)])
        self.check("latents")
        return read


def spans_of(number: int, references: tuple[int, ...]) -> tuple[int, int]:
    """How far picture `number` is after its references (negative: before), 0 where there is none."""
    first, second = (*references, number)[:2]
    return number - first, number - second


def references_of(frames: Mapping[int, Frame], numbers: Sequence[int], weights: Sequence[Weight]) -> list[Reference]:
    """What a picture is predicted from: those frames, with weights where it has any."""
    references = [frames[n].reference for n in numbers]
    return [r.weighted(w) for r, w in zip(references, weights, strict=True)] if weights else references


class GopDecoder:
    """Decodes the packets of one GOP, in coding order, a batch at a time; offset: where the GOP begins, for errors."""

    def __init__(self, model: Model, header: Header, offset: int, clock: Clock) -> None:
        self.network, self.loop_filter, self.offset, self.clock = model.network, model.loop_filter, offset, clock
        self.height, self.width = -(-header.height // TILE) * TILE, -(-header.width // TILE) * TILE
        self.tiles = header.version >= FIRST_WITH_TILES
        self.frames: dict[int, Frame] = {}

    def decode(self, batch: list[Packet]) -> None:
        """Decode packets that do not refer to each other; the pictures are in `frames` afterwards."""
        with self.clock.part("motion"):
            moved = each(self._predict, batch)
        with self.clock.part("network"):
            work = list(zip(batch, moved, strict=True))
            parts = shares(work, self.height * self.width) if self.network.device.type == "cpu" else [work]
            for frames, clock in each(self._reconstruct, parts):
                self.frames |= frames
                self.clock.add(clock)

    def _predict(self, packet: Packet) -> Moved[range_coder.Decoder]:
        coder = range_coder.Decoder(packet.payload)
        if not packet.references:
            return Moved(coder)
        references = references_of(self.frames, packet.references, packet.weights)
        field = vectors.decode_field(coder, spans_of(packet.number, packet.references), references)
        if coder.overrun:
            raise BitstreamError(f"picture {packet.number}: its motion is longer than its bytes", self.offset)
        return Moved(coder, field, predict(field, references))

    @torch.inference_mode()
    def _reconstruct(self, work: Sequence[tuple[Packet, Moved[range_coder.Decoder]]]) -> tuple[dict[int, Frame], Clock]:
        clock, batch, moved = Clock(), *(list(part) for part in zip(*work, strict=True))

        def check(part: str) -> None:
            for packet, found in work:
                if found.coder.overrun:
                    raise BitstreamError(f"picture {packet.number}: its {part} are longer than its bytes", self.offset)

        planes, d = predictions([found.pair for found in moved], self.height, self.width)
        with clock.part("tiles"):
            kinds = [read_tiles(found.coder, planes[k], d[k]) if self.tiles
                     else np.full((self.height // TILE, self.width // TILE), NETWORK, np.uint8)
                     for k, found in enumerate(moved)]
        check("tiles")
        for pieces in pieces_of(kinds):
            packets = [batch[k] for k in pieces.pictures]
            side = side_of([packet.type for packet in packets], [packet.q for packet in packets])
            symbols = _Symbols(self.network, pieces, [moved[k].coder for k in pieces.pictures], check, clock)
            z = symbols.hyper(side, hyper_latent.index_of(self.network, side, *pieces.size))
            made = reconstruct(self.network, side, pieces.cut(planes), pieces.cut(d), z, symbols.visit)
            pieces.paste(made, planes)
        pictures = [unpack(made) for made in planes]
        if self.loop_filter:
            with clock.part("loop filter"):
                pictures = [self._filtered(self.loop_filter, packet, found.coder, picture, tiles == NETWORK)
                            for packet, found, picture, tiles in zip(batch, moved, pictures, kinds, strict=True)]
            check("latents")
        return {packet.number: Frame.of(picture, found.field)
                for packet, found, picture in zip(batch, moved, pictures, strict=True)}, clock

    @staticmethod
    def _filtered(loop_filter: LoopFilter, packet: Packet, coder: range_coder.Decoder, picture: Picture,
                  coded: NDArray[np.bool_]) -> Picture:
        luma, chroma = read_use(coder) if coded.any() else (False, False)
        kind = TYPES[packet.type]
        if luma:
            picture = loop_filter.luma(picture, coded, kind, packet.q)
        return loop_filter.chroma(picture, coded, kind, packet.q) if chroma else picture


def independent(packets: list[Packet], most: int = BATCH) -> Iterator[list[Packet]]:
    """Packets in coding order, grouped so that none refers to another of its group."""
    batch: list[Packet] = []
    for packet in packets:
        if batch and (len(batch) == most or any(b.number in packet.references for b in batch)):
            yield batch
            batch = []
        batch.append(packet)
    if batch:
        yield batch


class StreamDecoder:
    """Decodes a parsed stream. Iterate `pictures()` once: uint8 4:2:0 pictures in display order.

    Memory: the pictures that the stream itself holds alive (nvc/stream/syntax.py bounds them), and one batch.
    Raises BitstreamError for payloads that do not hold what their packets say."""

    def __init__(self, stream: Stream, model: Model) -> None:
        self.stream, self.model = stream, model
        self.clock = Clock()
        self.count = 0

    def pictures(self) -> Iterator[Picture]:
        header = self.stream.header
        for gop in self.stream.gops:
            decoder = GopDecoder(self.model, header, gop.offset, self.clock)
            show, dropped = gop.first, set[int]()
            for batch in independent(self.stream.packets(gop)):
                decoder.decode(batch)
                for packet in batch:
                    dropped.update(packet.drop)
                while show in decoder.frames:
                    self.count += 1
                    yield crop(decoder.frames[show].picture, header.width, header.height)
                    show += 1
                for number in [n for n in dropped if n < show]:
                    decoder.frames.pop(number, None)
                    dropped.discard(number)

    def details(self) -> dict[str, Any]:
        """What was measured: seconds by part (network includes the waits for entropy), model, kernels."""
        return {"seconds": self.clock.rounded(), "model": self.model.name, "model_sha256": self.model.sha256,
                "missing": [[r.start, r.stop] for r in self.stream.missing]}
