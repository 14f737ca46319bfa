"""Weights of narrower networks in wider ones, which compute the same at first.

What is new in a layer's outputs starts at random, what reads it at zero, so training goes on from where it was (as in
Chen et al. 2015, arXiv:1511.05641, where units are copied).
"""

from __future__ import annotations

from torch import Tensor


def widened(tensor: Tensor, new: Tensor) -> Tensor:
    """`tensor` in the first rows and columns of `new`, zeros in those of its rows that it had not.

    ValueError if it is larger, or differs beyond the first two dimensions."""
    if tensor.shape[2:] != new.shape[2:] or any(n > m for n, m in zip(tensor.shape, new.shape, strict=True)):
        raise ValueError(f"{tuple(tensor.shape)} does not fit into {tuple(new.shape)}")
    out = new.clone()
    out[:tensor.shape[0]] = 0
    out[tuple(slice(n) for n in tensor.shape)] = tensor
    return out
