"""The coded form of a picture's hyper-latent: which of its positions are empty, then the symbols of the others.

    hyper = [empty] for each position, in rows; {48 symbols} for each that is not empty, in rows

[..] an adaptive bit, symbols by static tables. A position stands for 64×64 luma pixels. Where a picture is predicted
well, most positions hold nothing; said symbol by symbol, with tables that know the type and the step but not the
content, that cost more than all the rest of such a picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from nvc.entropy.bits import DECODE, ENCODE, code_bit
from nvc.entropy.range_coder import TOTAL, Decoder, Encoder, Tables, fresh_contexts
from nvc.network.fixed_point import FixedNetwork
from nvc.network.laplace import Laplace
from nvc.network.network import HYPER, HYPER_MAX, Side

# λ of the choice of symbols, in squares of their steps.
LAMBDA_SCALE = 0.05
# Probability that a position is not empty, by type (I, P, B) and by how many of those left and above are not; and how
# many bits it counts as having seen. Counted over 24 training clips at three qualities.
START = np.array([[0.98, 0.98, 0.98], [0.59, 0.84, 0.94], [0.09, 0.39, 0.66]])
CONFIDENCE = 6
FULL_BITS = 2.0         # about what it costs to say that a position is not empty, against saying that it is


def index_of(network: FixedNetwork, side: Side, height: int, width: int) -> NDArray[np.int32]:
    """Tables of the symbols, int32 [B, ⌈height/64⌉, ⌈width/64⌉, HYPER]."""
    index = network.z_index(side)[:, :, 0, 0].to(torch.int32).numpy()
    return np.ascontiguousarray(np.broadcast_to(
        index[:, None, None, :], (len(index), -(-height // 64), -(-width // 64), index.shape[1])))


def choose(wanted: Tensor, index: Tensor) -> Tensor:
    """Symbols for hyper-latents wanted [B, HYPER, h, w], by D + λR: each, and then whether a position has any.

    index [B, HYPER, 1, 1]: tables; 0 codes nothing."""
    prior, coded = Laplace.of(index), index > 0
    z = (prior.quantise(wanted, wanted.new_tensor(LAMBDA_SCALE)) * coded).clamp(-HYPER_MAX, HYPER_MAX)
    saved = wanted.square() - (wanted - z).square()
    bits = (prior.bits(z.abs()) * coded).sum(1, keepdim=True) + FULL_BITS
    return z * (saved.sum(1, keepdim=True) > LAMBDA_SCALE * bits)


@njit(cache=True, nogil=True)
def _walk(direction, state, buffer, contexts, full):
    """Code which positions are full, uint8 [h + 1, w + 1]: one row above and one column left of them stay 0."""
    for i in range(1, full.shape[0]):
        for j in range(1, full.shape[1]):
            c = np.int64(full[i - 1, j]) + np.int64(full[i, j - 1])
            full[i, j] = code_bit(direction, state, buffer, contexts, c, np.int64(full[i, j]))


def _contexts(kind: int) -> NDArray[np.int32]:
    return fresh_contexts(1.0 - START[kind], CONFIDENCE)


def write(coder: Encoder, z: NDArray[np.int32], index: NDArray[np.int32], kind: int, tables: Tables) -> None:
    """Code a picture's symbols z [h, w, HYPER], 0 where index is 0. kind: 0 I, 1 P, 2 B."""
    full = np.pad(z.any(2), ((1, 0), (1, 0))).astype(np.uint8)
    coder.reserve(full.size * 2)
    _walk(ENCODE, coder.state, coder.buffer, _contexts(kind), full)
    coder.put(z, index * full[1:, 1:, None], tables)


def read(coder: Decoder, index: NDArray[np.int32], kind: int, tables: Tables) -> NDArray[np.int32]:
    """The symbols that `write` coded."""
    full = np.zeros((index.shape[0] + 1, index.shape[1] + 1), np.uint8)
    _walk(DECODE, coder.state, coder.data, _contexts(kind), full)
    return coder.get(index * full[1:, 1:, None], tables)


def warm() -> None:
    """Compile the kernel into numba's cache."""
    z, tables = np.zeros((1, 1, HYPER), np.int32), Tables(np.array([[0, TOTAL - 1, TOTAL]] * 2), np.zeros(2, np.int32))
    coder = Encoder()
    write(coder, z, z, 0, tables)
    read(Decoder(coder.finish()), z, 0, tables)
