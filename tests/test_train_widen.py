"""Weights of narrower networks in wider ones."""

from __future__ import annotations

import pytest
import torch

from train.objective import Objective
from train.widen import widened


def test_what_is_new_in_a_row_is_zero_and_new_rows_are_as_given() -> None:
    old, new = torch.tensor([[1.0, 2.0]]), torch.tensor([[7.0, 7.0, 7.0], [8.0, 8.0, 8.0]])
    assert widened(old, new).tolist() == [[1.0, 2.0, 0.0], [8.0, 8.0, 8.0]]


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (1, 2, 1, 1)])
def test_what_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        widened(torch.zeros(shape), torch.zeros((1, 3, 3, 3)[:len(shape)]))


def test_wider_networks_compute_what_the_narrow_ones_did() -> None:
    torch.manual_seed(0)
    narrow, wide = Objective(context=32), Objective(context=48)
    new = wide.state_dict()
    wide.load_state_dict({name: widened(t, new[name]) for name, t in narrow.state_dict().items()})
    planes = torch.randint(0, 256, (3, 2, 6, 32, 32)).float()
    kind, t = torch.tensor([0, 2]), torch.tensor([40.0, 60.0])
    with torch.no_grad():
        wide.network.measure(), narrow.network.measure()
        for made, wanted in zip(wide(*planes, kind, t), narrow(*planes, kind, t), strict=True):
            assert torch.equal(made, wanted)
