"""Refined latents: the network with gradients gives the decoder's numbers, and what it gives is coded as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from synthetic import info_of, moving, sha_of
from torch import Tensor

from coding.interface import Settings
from nvc.codec import Nvc
from nvc.decoder import reconstruct, side_of
from nvc.encoder.encode import SymbolWriter, Tally, analysis_of, lambda_scale_of
from nvc.encoder.quantisation import refine as refinement_in_bands
from nvc.encoder.quantisation.differentiable import DifferentiableNetwork
from nvc.encoder.quantisation.refine import Refinement, bands_of, refine
from nvc.entropy.range_coder import Encoder
from nvc.network.cpu_reconstruction import Integers
from nvc.network.model import Model, load_model, models
from nvc.network.network import CHANNELS, FIRST, HYPER, STEPS, Side, first_joined, gather
from nvc.tiles.pieces import Pieces

RNG = np.random.default_rng(7)
H, W = 8, 12                    # positions


@pytest.fixture(autouse=True)
def same_numbers_for_each_test() -> None:
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


@pytest.fixture(scope="module", params=models())
def model(request: pytest.FixtureRequest) -> Model:
    return load_model(request.param)


@pytest.fixture(scope="module")
def differentiable(model: Model) -> DifferentiableNetwork:
    return DifferentiableNetwork(model.weights)


def planes(noise: float, h: int = H, w: int = W) -> Tensor:
    """A soft wave with noise, [1, 6, 4h, 4w], whole numbers."""
    wave = 128 + 60 * np.sin(np.arange(4 * w) / 7)[None, :] * np.cos(np.arange(4 * h) / 5)[:, None]
    return torch.from_numpy((wave + RNG.normal(0, noise, (1, 6, 4 * h, 4 * w))).clip(0, 255).round()).float()


def refinement_of(differentiable: DifferentiableNetwork, h: int, w: int,
                  importance: NDArray[np.float32] | None = None, t: float = 40.0) -> Refinement:
    p = planes(6.0, h, w)
    z = torch.from_numpy(RNG.integers(-2, 3, (1, HYPER, -(-h // 8), -(-w // 8)))).float()
    return Refinement(differentiable, Side.of(torch.tensor([1]), torch.tensor([t])), planes(2.0, h, w), p,
                      torch.zeros_like(p), z, lambda_scale_of("P"),
                      np.ones((h, w), np.float32) if importance is None else importance)


@pytest.fixture
def refinement(differentiable: DifferentiableNetwork) -> Refinement:
    return refinement_of(differentiable, H, W)


def test_the_network_with_gradients_gives_the_decoders_numbers(model: Model, refinement: Refinement) -> None:
    fixed, r = model.network, refinement
    v8 = torch.from_numpy(RNG.integers(-40, 41, (1, CHANNELS, H, W))).float()

    def walked(network) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def visit(step: int, mean: Tensor, index: Tensor) -> Tensor:
            seen.append(torch.cat([mean, index], 1).detach())
            return (8.0 * torch.full_like(mean, step - 2.0) + mean).requires_grad_(network is not fixed)

        _, features = network.walk(r.context, visit)
        made = network.synthesis(v8, features, r.p, r.d, r.side, r.local)
        return torch.cat([s.flatten() for s in seen]), made.detach().float()

    parameters, made = walked(r.network)
    with torch.no_grad():
        expected_parameters, expected = walked(fixed)
    assert torch.equal(parameters, expected_parameters)
    # Coefficients are floats here, and rounded to a 16th of a pixel there: a sum near one half may round the other way.
    assert (made - expected).abs().max() <= 1
    assert (made != expected).float().mean() < 0.05


def test_refined_latents_cost_less_than_those_chosen_greedily(refinement: Refinement) -> None:
    y = torch.from_numpy(RNG.normal(0, 3, (1, CHANNELS, H, W))).float()
    refined = refinement.run(y, 12) / refinement.steps
    greedy = refinement.attempt(y / refinement.steps)
    same = refinement.attempt(refined, 0.0)
    assert torch.equal(same.latents, refined)               # they are symbols: nothing is left to choose
    assert same.cost < 0.9 * greedy.cost


def test_errors_are_less_where_they_count_more(model: Model, differentiable: DifferentiableNetwork) -> None:
    left = np.full((H, W), 0.5, np.float32)
    left[:, :W // 2] = 2.0
    off = []
    for importance in (left, 1 / left):
        RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state
        r = refinement_of(differentiable, H, W, importance, 20.0)
        analysis = analysis_of(model)
        y = first_joined(analysis.transform(r.x - r.p, r.side))
        squared = (r.attempt(r.run(y, 4) / r.steps, 0.0).out - r.x) ** 2
        off.append(squared[..., :2 * W].mean().item())
    assert off[0] < 0.9 * off[1]


def test_refined_latents_are_coded_as_they_are(model: Model, differentiable: DifferentiableNetwork) -> None:
    p, d = np.full((6, 4 * H, 4 * W), 128, np.uint8), np.zeros((6, 4 * H, 4 * W), np.int16)
    x = planes(3.0)[0].numpy().astype(np.uint8)
    y, z = RNG.normal(0, 2, (H, W, CHANNELS)).astype(np.float32), np.zeros((1, 2, HYPER), np.int32)
    alike = np.ones((H, W), np.float32)
    refined = refine(differentiable, 0, 20, x, p, d, y, z, lambda_scale_of("I"), alike, 3)
    nothing = np.zeros(CHANNELS, np.float32)
    pieces = Pieces.whole(1, H // 2, W // 2)
    writer = SymbolWriter([Encoder()], pieces, model.network.tables, model.network.tables.bits(), [nothing], [alike],
                          Tally())
    far: list[float] = []

    def visit(step: int, mean: Integers, index: Integers, local: Integers) -> Integers:
        symbols = writer.code(refined[None], step, mean, index, local)
        group, parity = STEPS[step]
        own = torch.from_numpy(refined * 1024 / local[0][..., None]).permute(2, 0, 1)[None]
        wanted = gather(own[:, FIRST[group]:FIRST[group + 1]], parity).permute(0, 2, 3, 1).numpy()
        far.append(np.abs(symbols + mean / 8 - wanted).max())
        return symbols

    reconstruct(model.network, side_of(["I"], [20]), p[None], d[None], z[None], visit)
    assert len(far) == len(STEPS)
    assert max(far) < 1e-3


def test_effort_3_decodes_to_the_pictures_that_were_measured() -> None:
    clip = moving(6)
    coded = Nvc().encode(clip, info_of(clip), Settings(quality=30, effort=3))
    assert sha_of(Nvc().decode(coded.data)) == coded.pictures_sha256
    assert coded.details["seconds"]["refine"] > 0


@pytest.mark.parametrize(("structure", "refined"), [("random_access", True), ("low_delay", True), ("intra", False)])
def test_effort_0_refines_i_pictures_that_others_refer_to(structure: str, refined: bool) -> None:
    clip = moving(3)
    coded = Nvc().encode(clip, info_of(clip), Settings(quality=30, structure=structure))
    assert ("refine" in coded.details["seconds"]) == refined
    assert sha_of(Nvc().decode(coded.data)) == coded.pictures_sha256


def test_pictures_are_refined_in_bands_of_like_size() -> None:
    assert bands_of(46, 80) == [(0, 46)]                                            # 640×360
    assert bands_of(136, 240) == [(0, 40), (40, 72), (72, 104), (104, 136)]         # 1920×1080
    assert bands_of(8, 2000) == [(0, 8)]  # not lower than a hyper-latent's row


def test_a_picture_in_bands_is_refined_as_in_one_piece_but_for_few_symbols(
        model: Model, differentiable: DifferentiableNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    h, w = 40, 12
    x, p = (planes(noise, h, w)[0].numpy().astype(np.uint8) for noise in (2.0, 6.0))
    d, z = np.zeros(x.shape, np.int16), np.zeros((5, 2, HYPER), np.int32)
    with torch.inference_mode():
        side = side_of(["P"], [40])
        y = first_joined(analysis_of(model).transform(torch.from_numpy(x.astype(np.float32) - p)[None], side))
    wanted = y[0].permute(1, 2, 0).contiguous().numpy()
    made = []
    for band in (1000, 200):
        monkeypatch.setattr(refinement_in_bands, "BAND", band)
        made.append(refine(differentiable, 1, 40, x, p, d, wanted, z, lambda_scale_of("P"),
                           np.ones((h, w), np.float32), 2))
    assert len(bands_of(h, w)) == 2
    assert (made[0] != made[1]).mean() < 0.02
