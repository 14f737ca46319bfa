"""The networks: layout of the checkerboard, exactness of the frozen form, proofs that refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics import ssim_and_ms_ssim
from nvc.encoder.analysis import Analysis
from nvc.encoder.encode import fineness, lambda_scale_of
from nvc.encoder.quantisation import quantise
from nvc.network import bands, layout
from nvc.network import fixed_point as fixed
from nvc.network.laplace import Laplace
from nvc.network.layers import Conv
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.network.network import STEPS, Network, Side, dct_basis, gather, join, one_position_each, scatter
from train.export import frozen, laplace_tables
from train.objective import Objective, lagrangian, lean


def test_scatter_undoes_gather_for_both_colours() -> None:
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)
    assert torch.equal(scatter(gather(x, 0), 0) + scatter(gather(x, 1), 1), x)


def test_gather_takes_the_even_colour_row_by_row() -> None:
    x = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]])[None, None]
    assert gather(x, 0)[0, 0].tolist() == [[0, 2], [5, 7]]
    assert gather(x, 1)[0, 0].tolist() == [[1, 3], [4, 6]]


def test_the_encoders_transform_is_linear() -> None:
    a, b = torch.randint(-255, 256, (2, 1, 6, 16, 24)).float()
    side = Side.of(torch.tensor([2]), torch.tensor([40.0]))
    of = [Analysis().transform(residual, side) for residual in (a, b, a - 2 * b)]
    assert torch.allclose(of[0] - 2 * of[1], of[2], atol=1e-3)


def test_activations_are_rounded_to_even_and_clipped() -> None:
    sums = torch.tensor([-3.0, -0.25, 0.5, 1.5, 2.5, 254.0, 256.0, 3e38]).bfloat16()
    sums = layout.as_grid(sums[None, :, None, None])
    active = np.empty(sums.shape, np.uint8)
    layout.activate(sums, active)
    assert active.flatten().tolist() == [0, 0, 0, 2, 2, 254, 255, 255]


def test_joining_puts_twice_the_mean_of_four_positions_first() -> None:
    joined = join(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    assert joined.tolist() == [[[[6.0, -2.0], [-3.0, 1.0]]]]


def test_joining_twice_gives_what_was() -> None:
    x = torch.randint(-99, 99, (2, 4, 6, 8)).float()
    assert torch.equal(join(join(x)), x)


def test_bands_apart_are_the_four_places_of_each_pair_of_rows_and_columns() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert [one.sum().item() for one in one_position_each(x)] == [1.0, 2.0, 3.0, 6.0]
    assert torch.equal(sum(one_position_each(x), torch.zeros(())), x)


def test_the_integers_of_the_decoder_are_the_bands_of_the_networks() -> None:
    x = torch.randint(-99, 99, (1, 1, 6, 8))
    grid = x[0].permute(1, 2, 0).numpy().astype(np.int32)
    made = [[bands.half(bands.band(grid, i, j, 0)) for j in range(8)] for i in range(6)]
    assert made == join(x.float())[0, 0].round().int().tolist()


def test_steps_cover_every_channel_group_once() -> None:
    assert sorted(STEPS) == sorted([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, None)])


def test_the_basis_is_orthonormal() -> None:
    b = dct_basis().reshape(96, 96)
    assert torch.allclose(b @ b.T, torch.eye(96), atol=1e-6)


def test_weights_round_to_int8_times_a_power_of_two() -> None:
    torch.manual_seed(0)
    conv = Conv(5, 7, 3)
    weight, exponent, bias = fixed.integers_of(conv)
    assert weight.abs().max() <= 127
    assert torch.equal(weight.float() * torch.exp2(exponent.float())[:, None, None, None], conv.quantised()[0])
    assert torch.equal(bias.float() * torch.exp2(exponent.float()), conv.quantised()[1])


def test_a_layer_whose_sums_could_leave_float32_is_refused() -> None:
    weight = torch.full((1, 600, 1, 1), 127, dtype=torch.int8)
    with pytest.raises(fixed.ExactnessError, match=r"x: a sum may reach 19431000, float32 is exact below 16777216"):
        fixed.prove("x", weight, torch.zeros(1, dtype=torch.int32))


def test_a_kernel_that_rounds_differently_is_found_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(DEFAULT_MODEL)
    real = torch.nn.functional.conv2d

    def sloppy(x, w, *args, **kwargs):
        return real(x, w, *args, **kwargs) * (1 + 2.0**-7)

    monkeypatch.setattr(torch.nn.functional, "conv2d", sloppy)
    with pytest.raises(fixed.ExactnessError, match="neither bfloat16 nor float32 kernels are exact"):
        fixed.FixedNetwork(model.weights)


def test_the_frozen_network_gives_the_numbers_of_the_trained_one() -> None:
    torch.manual_seed(1)
    trained = Objective().eval().requires_grad_(False)
    torch.nn.init.normal_(trained.network.local.weight, std=0.05)
    tensors = frozen(trained, laplace_tables())
    exact = fixed.FixedNetwork(fixed.Weights(tensors, "0" * 64))
    side = Side.of(torch.tensor([2]), torch.tensor([48.0]))
    p = torch.randint(0, 256, (1, 6, 32, 32)).float()
    d = torch.randint(-40, 40, (1, 6, 32, 32)).float()
    z = torch.randint(-3, 4, (1, 48, 1, 1)).float()

    def visit(step: int, mean: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        noise = torch.Generator().manual_seed(step)
        return 8 * torch.randint(-2, 3, mean.shape, generator=noise) + mean

    results = []
    for network in (trained.network, exact):
        assert isinstance(network, Network)
        with torch.inference_mode():
            context = network.context(z, p, d, side)
            local = network.local_step(context)
            v8, features = network.walk(context, visit)
            made = network.synthesis(v8, features, p, d, side, local).round().clamp(0, 255)
            results.append((context, local, v8, features, made))
    for a, b in zip(results[0][:4], results[1][:4], strict=True):
        assert torch.equal(a, b)
    assert results[0][1].unique().numel() > 3
    assert (results[0][4] - results[1][4]).abs().max() <= 1     # the linear core is rounded to 2^-14 at export


def test_laplace_probabilities_sum_to_one() -> None:
    k = torch.arange(0, 4000.0)[:, None]
    p = torch.exp2(-Laplace.of(torch.tensor([0.0, 10.0, 30.0, 55.0]).double()[None].expand(4000, 4)).bits(k))
    total = p[0] + 2 * p[1:].sum(0)
    assert torch.allclose(total, torch.ones(4, dtype=torch.float64), atol=1e-6)


def test_rate_distortion_quantisation_matches_a_plain_search() -> None:
    torch.manual_seed(2)
    e = torch.randn(500) * 3
    index = torch.randint(1, 50, (500,)).float()
    prior = Laplace.of(index)
    chosen = prior.quantise(e, torch.tensor(0.15))
    for value, symbol, zero, base, slope in zip(e, chosen, prior.zero, prior.base, prior.slope, strict=True):
        near = int(torch.round(value))
        options = {near, near - (near > 0) + (near < 0), 0}
        cost = {s: (value - s) ** 2 + 0.15 * (zero if s == 0 else base + abs(s) * slope) for s in options}
        assert cost[int(symbol)] <= min(cost.values()) + 1e-5


def planes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5)).float()


def test_distortion_is_squared_error_of_luma_and_chroma_at_six_to_three() -> None:
    x = planes(2, 6, 8, 8) * 0.5
    out = x.clone()
    out[0, :4] += 2.0
    out[1, 4:] += 2.0
    assert Objective("psnr").distortion(out, x).tolist() == pytest.approx([4 * 6 / 8, 4 * 6 / 8])


def test_distortion_for_ms_ssim_is_what_luma_lost_of_it_and_chromas_squared_error() -> None:
    x = planes(1, 6, 96, 96)
    out = (x + planes(1, 6, 96, 96).flip(2) * 0.1).round().clamp(0, 255)
    y, made = (np.ascontiguousarray(torch.nn.functional.pixel_shuffle(v[:, :4], 2)[0, 0].byte()) for v in (x, out))
    chroma = float(((out - x)[:, 4:] ** 2).mean())
    measured = ssim_and_ms_ssim(y, made)[1]
    assert measured is not None
    expected = (6 * 950.0 * (1 - measured) + 5 * chroma) / 8
    assert Objective("ms_ssim").distortion(out, x).item() == pytest.approx(expected, rel=1e-3)


def test_a_pictures_distortion_counts_in_bits_at_its_types_slope() -> None:
    kind, t = torch.tensor([0, 2]), torch.tensor([0.0, 96.0])
    j = lagrangian(torch.tensor([100.0, 0.0]), torch.tensor([0.0, 3.0]), kind, t, 50)
    assert j.tolist() == pytest.approx([2.0, 3.0 / (0.15 * 2 ** (0.78 - 6 * 0.133) * 4096)])


def test_training_chooses_with_the_encoders_thrift_at_fine_steps_too() -> None:
    """An I picture is 8 steps coarser than what was asked for, a P picture 19; from 50 on nothing is left of it."""
    kinds, steps = torch.tensor([0, 1, 1, 2]), torch.tensor([33.0, 44.0, 69.0, 20.0])
    assert lean(kinds, steps).tolist() == pytest.approx([0.775, 0.775, 1.0, 0.55])
    for kind, share in (("I", 0.775), ("P", 0.775)):
        assert lambda_scale_of(kind, fineness(25.0))[0] == pytest.approx(share * lambda_scale_of(kind)[0])


def test_where_less_thrift_is_left_distortion_counts_as_much_more() -> None:
    kind, t = torch.tensor([0, 0]), torch.tensor([33.0, 58.0])
    price = [0.15 * 2 ** (1.52 - 0.315 * s / 16) * 4 ** (s / 16) for s in (33.0, 58.0)]
    j = lagrangian(torch.zeros(2), torch.tensor([0.775, 1.0]), kind, t, 50)
    assert j.tolist() == pytest.approx([1 / price[0], 1 / price[1]])


def test_a_position_with_half_the_step_takes_twice_the_symbol() -> None:
    y, symbols = np.full((2, 2, 96), 3.0, np.float32), np.zeros((2, 2, 4), np.int32)
    local = np.array([[1024, 512], [2048, 1024]], np.int32)
    parameters = np.zeros((2, 2, 4), np.int32)
    free = np.zeros((2, 32), np.float32)            # no symbol costs anything
    quantise.choose(y, local, 0, 2, parameters, parameters + 1, np.zeros(96, np.float32), np.ones((2, 2), np.float32),
                    free, np.full(2, 15, np.int32), symbols)
    assert symbols[..., 0].tolist() == [[3, 6], [1, 3]]


def test_where_errors_are_worth_more_a_symbol_may_cost_more() -> None:
    """Without its symbol of 8 bits a position is wrong by 1: at λ = 0.2 that pays from a worth of 1.6 on."""
    y, symbols = np.ones((2, 2, 96), np.float32), np.zeros((2, 2, 4), np.int32)
    parameters = np.zeros((2, 2, 4), np.int32)
    bits = np.full((2, 32), 8.0, np.float32)
    bits[:, 15] = 0                                 # slot of the zero
    importance = np.array([[1.0, 1.5], [1.7, 5.0]], np.float32)
    quantise.choose(y, parameters[..., 0] + 1024, 0, 2, parameters, parameters + 1, np.full(96, 0.2, np.float32),
                    importance,
                    bits, np.full(2, 15, np.int32), symbols)
    assert symbols[..., 0].tolist() == [[0, 0], [1, 1]]
