"""The encoder's choice of the hyper-latent: a symbol has to be worth its bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coding import Settings
from nvc.decode import side_of
from nvc.encode import Encoder
from nvc.model import DEFAULT_MODEL, load_model
from nvc.network import HYPER


@pytest.mark.parametrize(("wanted", "symbol"), [(0.52, 0), (-0.52, 0), (3.0, 3), (-3.0, -3), (1000.0, 127)])
def test_just_over_a_half_is_not_worth_a_symbol(monkeypatch: pytest.MonkeyPatch, wanted: float, symbol: int) -> None:
    """The nearest integer saves a twenty-fifth of a step's square, and costs over 0.8 bits more than zero."""
    encoder = Encoder(load_model(DEFAULT_MODEL), Settings(), 40.0)
    monkeypatch.setattr(encoder.analysis, "hyper", lambda y, side: torch.full((1, HYPER, 1, 1), wanted))
    x = np.full((1, 6, 32, 32), 128, np.uint8)
    _, z = encoder.analyse(x, x, np.zeros(x.shape, np.int16), side_of(["B"], [40]))
    assert np.unique(z).tolist() == [symbol]
