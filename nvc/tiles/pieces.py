"""Between pictures of a batch and the regions of them that the networks code, each region as a picture of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvc.entropy.range_coder import Decoder, Encoder
from nvc.network.network import STEPS
from nvc.network.planes import Planes, pack, unpack
from nvc.tiles.kinds import NETWORK, SAMPLES, TILE, Kinds, Region, decode_kinds, encode_kinds, regions_of, spread
from nvc.tiles.samples import decode_samples, encode_samples
from video.picture import Picture

PLANE_SIDE = TILE // 2              # of a tile in planes
POSITIONS = TILE // 8               # of a tile in latents, each way


def read_tiles(coder: Decoder, p: Planes, d: NDArray[np.int16]) -> Kinds:
    """Read the kinds of a picture's tiles and its samples; p, d (both predictions' mean and difference) then have these
    samples, and no difference there. Look at coder.overrun."""
    kinds = decode_kinds(coder, p.shape[1] // PLANE_SIDE, p.shape[2] // PLANE_SIDE)
    if (kinds == SAMPLES).any() and not coder.overrun:
        image = unpack(p)
        decode_samples(coder, kinds, image)
        _placed(kinds, image, p, d)
    return kinds


def write_tiles(coder: Encoder, kinds: Kinds, x: Picture, p: Planes, d: NDArray[np.int16]) -> None:
    """What `read_tiles` reads, and the same change of p and d. x: the picture."""
    encode_kinds(coder, kinds)
    if (kinds == SAMPLES).any():
        image = unpack(p)
        encode_samples(coder, kinds, image, x)
        _placed(kinds, image, p, d)


def _placed(kinds: Kinds, image: Picture, p: Planes, d: NDArray[np.int16]) -> None:
    p[:] = pack(image)
    d[:, spread(kinds == SAMPLES, PLANE_SIDE)] = 0


@dataclass(frozen=True)
class Pieces:
    """Regions of one size, at most one of each picture of a batch: `pictures` are their indexes in it.

    coded bool [n, rows, columns]: which of their tiles the networks code."""

    pictures: list[int]
    regions: list[Region]
    coded: NDArray[np.bool_]

    @property
    def size(self) -> tuple[int, int]:
        """Luma height and width."""
        return self.coded.shape[1] * TILE, self.coded.shape[2] * TILE

    @classmethod
    def whole(cls, count: int, rows: int, columns: int) -> Pieces:
        """All of that many pictures of rows × columns tiles."""
        return cls(list(range(count)), [Region(0, 0, rows, columns)] * count, np.ones((count, rows, columns), np.bool_))

    @property
    def positions(self) -> NDArray[np.bool_]:
        """`coded` for each position of latents, [n, H, W]."""
        return spread(self.coded, POSITIONS)

    def cut(self, batch: Sequence[NDArray] | NDArray, side: int = PLANE_SIDE) -> NDArray:
        """Their part of each picture of [B, …, rows·side, columns·side], contiguous [n, …, h, w]."""
        return np.stack([batch[k][(..., *region.slices(side))]
                         for k, region in zip(self.pictures, self.regions, strict=True)])

    def paste(self, made: NDArray[np.uint8], batch: NDArray[np.uint8]) -> None:
        """Put what was made of them, [n, 6, h, w], into planes of the batch, where the networks code."""
        for k, region, planes, coded in zip(self.pictures, self.regions, made, self.coded, strict=True):
            target = batch[k][(..., *region.slices(PLANE_SIDE))]
            np.copyto(target, planes, where=spread(coded, PLANE_SIDE))

    def only_coded(self, index: NDArray[np.int32], step: int) -> NDArray[np.int32]:
        """Tables of a step's symbols, [n, R, C, channels], 0 (nothing is coded) in tiles that networks do not code."""
        if self.coded.all():
            return index
        parity, mask = STEPS[step][1], self.positions
        if parity is not None:
            mask = np.concatenate([mask[:, 0::2, parity::2], mask[:, 1::2, 1 - parity::2]], 1)
        return index * mask[..., None]


def pieces_of(kinds: Sequence[Kinds]) -> Iterator[Pieces]:
    """All regions of a batch's pictures, those of a picture in their order."""
    regions = [regions_of(k) for k in kinds]
    for place in range(max(map(len, regions), default=0)):
        by_size: dict[tuple[int, int], list[int]] = {}
        for k, found in enumerate(regions):
            if place < len(found):
                top, left, bottom, right = found[place]
                by_size.setdefault((bottom - top, right - left), []).append(k)
        for pictures in by_size.values():
            own = [regions[k][place] for k in pictures]
            coded = [kinds[k][region.slices()] == NETWORK for k, region in zip(pictures, own, strict=True)]
            yield Pieces(pictures, own, np.stack(coded))

