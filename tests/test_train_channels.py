"""Steps of channels that are set at once: all that is known to follow follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nvc.network.network import CHANNELS, FIRST, GROUPS, STEPS, dct_basis
from train.channels import costs, with_steps
from train.objective import Objective

LUMA = (dct_basis()[:, 4:].abs().amax((1, 2, 3)) == 0).nonzero()[:, 0].tolist()
CHROMA = sorted(set(range(CHANNELS)) - set(LUMA))
WANTED = torch.linspace(-0.5, 0.5, len(LUMA))


@pytest.fixture(scope="module")
def before() -> Objective:
    torch.manual_seed(3)
    model = Objective()
    with torch.no_grad():
        for gain in (model.network.gain, model.network.gain_slope, model.analysis.gain, model.analysis.gain_slope):
            gain.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def after(before: Objective) -> Objective:
    model = Objective()
    model.load_state_dict(with_steps(before.state_dict(), WANTED, LUMA))
    return model


def steps_of(model: Objective, kind: int, octave: float) -> Tensor:
    """Log of the size in pixels of a step of each channel."""
    size = model.network.core.detach().square().sum((1, 2, 3)).sqrt().log()
    return (model.network.gain[kind] + model.network.gain_slope[kind] * octave + size).detach()


@pytest.mark.parametrize("octave", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("kind", range(3))
def test_steps_of_luma_lie_as_wanted_about_the_mean_that_they_had(before: Objective, after: Objective, kind: int,
                                                                 octave: float) -> None:
    were, are = (steps_of(model, kind, octave)[LUMA] for model in (before, after))
    assert are.mean().item() == pytest.approx(were.mean().item(), abs=1e-4)
    np.testing.assert_allclose(are - are.mean(), WANTED, atol=1e-4)


def test_steps_of_chroma_stay(before: Objective, after: Objective) -> None:
    assert torch.equal(steps_of(before, 1, 1.0)[CHROMA], steps_of(after, 1, 1.0)[CHROMA])


def test_analysis_and_synthesis_make_of_a_picture_what_they_made(before: Objective, after: Objective) -> None:
    def both(model: Objective, octave: float) -> Tensor:
        analysis, network = model.analysis, model.network
        return analysis.gain - analysis.gain_slope * octave + network.gain + network.gain_slope * octave

    for octave in (-1.0, 2.0):
        torch.testing.assert_close(both(after, octave), both(before, octave))


def test_means_and_scales_follow_the_steps(before: Objective, after: Objective) -> None:
    x = torch.randint(0, 256, (1, 96, 2, 2), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad():
        longer = (after.network.gain - before.network.gain).mean(0)
        for step, (group, _) in enumerate(STEPS):
            own = longer[FIRST[group]:FIRST[group + 1], None, None]
            were, are = (F.conv2d(x, m.network.heads[step][1].weight, m.network.heads[step][1].bias)[0]
                         .split(GROUPS[group]) for m in (before, after))
            for mean, new in zip(were[::2], are[::2], strict=True):         # of each band
                torch.testing.assert_close(new, mean * torch.exp(-own), rtol=1e-4, atol=1e-2)
            # A scale index stands for 0.06·e^(i/8) steps, and is a quarter of what the head gives.
            for index, new in zip(were[1::2], are[1::2], strict=True):
                torch.testing.assert_close(new, index - 32.0 * own, rtol=1e-4, atol=1e-2)


def test_errors_of_low_frequency_cost_more() -> None:
    rng = np.random.default_rng(4)
    noise = torch.from_numpy(rng.normal(0, 1, (2, 6, 16, 16))).float()
    pictures = (128 + 25 * F.interpolate(noise, scale_factor=8, mode="bilinear")).clamp(0, 255)
    lapped = torch.zeros(CHANNELS, 6, 8, 8)
    lapped[:, :, 2:6, 2:6] = dct_basis()
    with torch.no_grad():
        low, high = costs(pictures, lapped, [LUMA[1], LUMA[-1]])
    assert low > 3 * high
