"""References with weights: what becomes of samples, and when the encoder uses them."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import faded, info_of, moving, sha_of

import codec
from coding.interface import Settings
from nvc.encoder.search.pyramid_search import pyramid
from nvc.encoder.search.weight_estimation import weigh
from nvc.motion.prediction import Reference
from nvc.motion.weighting import Weight, luma, weighted
from nvc.stream.reading import parse
from nvc.stream.syntax import Packet
from video.picture import Picture

BRIGHT, DARK = Weight(160, 10), Weight(64, 8)


def packets_of(data: bytes) -> list[Packet]:
    stream = parse(data)
    return [packet for gop in stream.gops for packet in stream.packets(gop)]


# --- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "samples"), [
    (Weight(), [0, 1, 100, 255]),
    (Weight(64, 0), [0, 1, 50, 128]),           # halves are rounded up
    (Weight(128, -3), [0, 0, 97, 252]),
    (Weight(255, 127), [127, 129, 255, 255]),
    (Weight(0, -128), [0, 0, 0, 0]),
])
def test_luma_is_gain_times_itself_and_the_offset(weight: Weight, samples: list[int]) -> None:
    assert luma(np.array([[0, 1, 100, 255]], np.uint8), weight).tolist() == [samples]


def test_chroma_keeps_its_distance_from_grey_times_the_gain() -> None:
    plane = np.array([[0, 127, 128, 130, 255]], np.uint8)
    made = weighted(Picture(plane, plane, plane), Weight(64, 99))
    assert made.u.tolist() == made.v.tolist() == [[64, 128, 128, 129, 192]]


def test_a_reference_with_weights_is_that_of_the_weighted_picture() -> None:
    picture = moving(1)[0]
    made, same = Reference(picture).weighted(DARK), Reference(weighted(picture, DARK))
    assert all((a == b).all() for a, b in zip((made.y, made.u, made.v), (same.y, same.u, same.v), strict=True))
    assert (made.phases == same.phases).all()


def test_no_weight_is_the_reference_itself() -> None:
    reference = Reference(moving(1)[0])
    assert reference.weighted(Weight()) is reference


# --- what the encoder finds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [BRIGHT, DARK])
def test_the_weight_that_a_picture_was_made_with_is_found(weight: Weight) -> None:
    y = moving(1, 96, 96)[0].y
    (found,) = weigh(pyramid(luma(y, weight)), [pyramid(y)], [6], 4.0)
    assert abs(found.gain - weight.gain) <= 4
    assert abs(found.offset - weight.offset) <= 4


def test_weights_that_make_nothing_better_predicted_are_not_used() -> None:
    """Noise has nothing to be predicted from, with whatever contrast."""
    x, r = (np.random.default_rng(seed).integers(low, 256 - low, (96, 96)).astype(np.uint8)
            for seed, low in enumerate((0, 60)))
    assert weigh(pyramid(x), [pyramid(r)], [6], 4.0) == ()


# --- in streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_a_fade_is_coded_with_weights_and_decoded_as_the_encoder_had_it(effort: int) -> None:
    pictures = faded(moving(9))
    encoded = codec.get("nvc").encode(pictures, info_of(pictures), Settings(24, effort=effort))
    assert any(packet.weights for packet in packets_of(encoded.data))
    assert sha_of(codec.get("nvc").decode(encoded.data)) == encoded.pictures_sha256


def test_a_clip_that_only_moves_is_coded_without() -> None:
    pictures = [Picture(*(np.roll(plane, 4 * k * plane.shape[0] // 64, 1) for plane in moving(1)[0])) for k in range(9)]
    encoded = codec.get("nvc").encode(pictures, info_of(pictures), Settings(24))
    assert not any(packet.weights for packet in packets_of(encoded.data))


def test_a_fade_takes_fewer_bytes_with_weights_and_looks_better(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = faded(moving(17, 96, 96))

    def coded() -> tuple[int, float]:
        data = codec.get("nvc").encode(pictures, info_of(pictures), Settings(40)).data
        decoded = codec.get("nvc").decode(data)
        errors = [np.mean((a.y.astype(float) - b.y) ** 2) for a, b in zip(pictures, decoded, strict=True)]
        return len(data), float(np.mean(errors))

    size, error = coded()
    monkeypatch.setattr("nvc.encoder.search.weight_estimation.BETTER", -1.0)      # never used
    size_without, error_without = coded()
    assert size < 0.85 * size_without
    assert error < 0.7 * error_without
