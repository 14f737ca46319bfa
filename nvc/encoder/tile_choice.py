"""Which tiles of a picture the networks are to code: the encoder's choice, by estimates of D + λR.

A tile is copied where its prediction is exact, or errs by so little that nothing would be coded. It is coded sample by
sample where it looks drawn, and that is measured to cost less than a transform is estimated to. No decoder runs this.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.encoder.sources.screen import drawn
from nvc.network.network import dct_matrix
from nvc.tiles.kinds import COPY, NETWORK, SAMPLES, TILE, Kinds, regions_of
from nvc.tiles.samples import bits_of
from video.picture import Picture

DEAD_ZONE = 0.62        # coefficients below that many steps are seldom coded
COEFFICIENT_BITS = 4.0  # of one of a step; a bit and a half more for each doubling
SPARED = 0.5            # of a picture: quiet tiles are left out where the networks then code no more than that
# Where samples cost less than that share of a transform over all that looks drawn, the picture is taken for a screen.
# Elsewhere a tile of samples has to save more: each is a guess spoilt for those beside it.
SCREEN, BIAS = 0.8, 3.0
_DCT = dct_matrix(8).numpy()


@njit(cache=True, nogil=True)
def _add_errors(x, p, size, errors):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            e = np.int64(x[i, j]) - np.int64(p[i, j])
            errors[i // size, j // size] += e * e


def errors_of(x: Picture, p: Picture) -> NDArray[np.int64]:
    """Squared error of p in all planes of each tile, [H/16, W/16]."""
    errors = np.zeros((x.y.shape[0] // TILE, x.y.shape[1] // TILE), np.int64)
    for plane, (source, prediction) in enumerate(zip(x, p, strict=True)):
        _add_errors(source, prediction, TILE if plane == 0 else TILE // 2, errors)
    return errors


def _transform_cost(x: Picture, p: Picture, chosen: tuple[NDArray[np.intp], ...], step: float,
                    price: float) -> NDArray[np.float64]:
    """About D + λR of coding the residual of the chosen tiles (rows, columns) by a transform, in squares of a level."""
    cost = np.zeros(len(chosen[0]))
    for plane, (source, prediction) in enumerate(zip(x, p, strict=True)):
        n = TILE if plane == 0 else TILE // 2
        rows, columns = source.shape[0] // n, source.shape[1] // n
        tiles = (source.astype(np.float32) - prediction).reshape(rows, n // 8, 8, columns, n // 8, 8)
        blocks = tiles.transpose(0, 3, 1, 4, 2, 5)[chosen]
        size = np.abs(_DCT @ blocks @ _DCT.T) / step
        coded = price * (COEFFICIENT_BITS + 1.5 * np.log2(np.maximum(size, DEAD_ZONE))) + step * step / 12
        cost += np.where(size > DEAD_ZONE, coded, (size * step) ** 2).sum(axis=tuple(range(1, size.ndim)))
    return cost


def choose(x: Picture, p: Picture, step: float, price: float, quiet_error: float) -> Kinds:
    """Kinds of the tiles of picture x, predicted by p, both padded to multiples of 16.

    step: of the quantiser, in levels; price: of a bit, in squares of a level; quiet_error: mean squared error of a
    prediction, in squares of a step, that is left as it is."""
    errors = errors_of(x, p)
    kinds = np.where(errors == 0, np.uint8(COPY), np.uint8(NETWORK))
    candidates = drawn(x) & (errors > 0)
    if candidates.any():
        bits = bits_of(np.where(candidates, np.uint8(SAMPLES), kinds), Picture(*(plane.copy() for plane in p)), x)
        chosen = np.nonzero(candidates)
        transform, samples = _transform_cost(x, p, chosen, step, price), price * bits[chosen]
        if samples.sum() > SCREEN * transform.sum():
            samples *= BIAS
        costs = {NETWORK: transform, COPY: errors[chosen], SAMPLES: samples}
        kinds[chosen] = np.array(list(costs), np.uint8)[np.argmin(list(costs.values()), 0)]
    quiet = (kinds == NETWORK) & (errors < quiet_error * step * step * TILE * TILE * 1.5)
    kinds[quiet] = COPY
    return _filled(kinds, quiet)


def _filled(kinds: Kinds, quiet: NDArray[np.bool_]) -> Kinds:
    """The same with quiet tiles left to the networks where these run anyway; everywhere, where little would be spared:
    their filter mends what nothing is coded for."""
    regions = regions_of(kinds)
    if sum(region.area for region in regions) > SPARED * kinds.size:
        kinds[quiet] = NETWORK
    for region in regions:
        inside = region.slices()
        kinds[inside][quiet[inside]] = NETWORK
    return kinds


def warm() -> None:
    """Compile the kernel into numba's cache."""
    _add_errors(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), 16, np.zeros((1, 1), np.int64))
