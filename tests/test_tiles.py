"""Tiles: their map, the regions that networks code, samples without loss, and what the encoder chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import info_of, moving, screen, sha_of

import nvc.decoder
from coding.interface import Settings
from nvc.codec import Nvc
from nvc.encoder import encode
from nvc.encoder.sources.screen import drawn
from nvc.encoder.tile_choice import choose
from nvc.entropy.range_coder import Decoder, Encoder
from nvc.network.planes import crop, pad
from nvc.stream.errors import BitstreamError
from nvc.stream.reading import parse
from nvc.stream.writing import GopWriter, Writer
from nvc.tiles.kinds import COPY, NETWORK, SAMPLES, Region, _box, _cut, decode_kinds, encode_kinds, regions_of
from nvc.tiles.pieces import Pieces, pieces_of
from nvc.tiles.samples import bits_of, decode_samples, encode_samples
from video.picture import Picture

NVC = Nvc()
RNG = np.random.default_rng(5)


def kinds_of(*rows: str) -> NDArray[np.uint8]:
    """A map, N network, . copy, S samples."""
    return np.array([["N.S".index(letter) for letter in row] for row in rows], np.uint8)


def coded(kinds: NDArray[np.uint8]) -> bytes:
    coder = Encoder()
    encode_kinds(coder, kinds)
    return coder.finish()


def any_picture(height: int, width: int) -> Picture:
    return Picture(*(RNG.integers(0, 256, (h, w)).astype(np.uint8)
                     for h, w in ((height, width), (height // 2, width // 2), (height // 2, width // 2))))


def grey_of(picture: Picture) -> Picture:
    return Picture(*(np.full_like(plane, 128) for plane in picture))


# --- The map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [kinds_of("N"), kinds_of("."), kinds_of("S"), kinds_of("N.S", "SS.", "..N", "NNN"),
                                   RNG.integers(0, 3, (17, 30)).astype(np.uint8)])
def test_a_map_is_decoded_as_it_was_coded(kinds: NDArray[np.uint8]) -> None:
    decoder = Decoder(coded(kinds))
    assert (decode_kinds(decoder, *kinds.shape) == kinds).all()
    assert decoder.finished


def test_a_picture_that_the_networks_code_as_a_whole_says_so_in_a_byte() -> None:
    assert len(coded(np.full((68, 120), NETWORK, np.uint8))) == 1


def test_a_picture_of_1920x1080_that_is_a_copy_says_so_in_few_bytes() -> None:
    assert len(coded(np.full((68, 120), COPY, np.uint8))) < 24


# --- Regions ----------------------------------------------------------------------------------------------------------


def test_no_network_tile_no_region() -> None:
    assert regions_of(kinds_of("...", ".S.")) == []


def test_a_region_is_the_box_around_what_is_coded() -> None:
    assert regions_of(kinds_of("......", "..N...", "...N..", "......")) == [Region(1, 2, 3, 4)]


def test_a_region_of_most_of_the_picture_is_the_picture() -> None:
    assert regions_of(kinds_of("NNNN", "NNNN", "NNNN", "NNN.")) == [Region(0, 0, 4, 4)]


def test_regions_far_apart_are_coded_apart() -> None:
    kinds = np.full((20, 30), COPY, np.uint8)
    kinds[:4, :5] = NETWORK
    kinds[15:, 28:] = NETWORK
    assert regions_of(kinds) == [Region(0, 0, 4, 5), Region(15, 28, 20, 30)]


def test_a_picture_has_at_most_16_regions_and_they_hold_all_that_is_coded() -> None:
    kinds = np.full((240, 240), COPY, np.uint8)
    for k in range(0, 240, 10):
        kinds[k:k + 2, k:k + 2] = NETWORK
    regions = regions_of(kinds)
    assert len(regions) == 16
    for region in regions:
        kinds[region.slices()] = COPY
    assert (kinds == COPY).all()


def test_the_best_cut_is_the_one_that_trying_all_finds() -> None:
    def tried(kinds: NDArray[np.uint8], region: Region) -> list[Region] | None:
        top, left, bottom, right = region
        pairs = [(Region(top, left, k, right), Region(k, left, bottom, right)) for k in range(top + 1, bottom)]
        pairs += [(Region(top, left, bottom, k), Region(top, k, bottom, right)) for k in range(left + 1, right)]
        best, least = None, region.area * 85 // 100 - 16
        for pair in pairs:
            parts = [box for part in pair if (box := _box(kinds == NETWORK, part))]
            if (area := sum(part.area for part in parts)) < least:
                best, least = parts, area
        return best

    cut = 0
    for _ in range(200):
        size = RNG.integers(1, 30, 2)
        kinds = (RNG.random(size) > RNG.choice([0.01, 0.05, 0.2])).astype(np.uint8)
        if box := _box(kinds == NETWORK, Region(0, 0, *kinds.shape)):
            found = _cut(kinds == NETWORK, box)
            assert found == tried(kinds, box)
            cut += found is not None
    assert cut > 20


def test_regions_of_one_size_are_coded_together_and_those_of_one_picture_one_after_the_other() -> None:
    two = np.full((20, 30), COPY, np.uint8)
    two[0, 0], two[19, 29] = NETWORK, NETWORK
    one = np.full((20, 30), COPY, np.uint8)
    one[7, 7] = NETWORK
    found = list(pieces_of([two, one, np.full((20, 30), COPY, np.uint8)]))
    assert [(pieces.pictures, pieces.regions) for pieces in found] == [
        ([0, 1], [Region(0, 0, 1, 1), Region(7, 7, 8, 8)]), ([0], [Region(19, 29, 20, 30)])]


def test_only_network_tiles_of_a_region_get_what_was_made() -> None:
    pieces = Pieces([0], [Region(0, 0, 1, 2)], np.array([[[True, False]]]))
    planes = np.zeros((1, 6, 8, 16), np.uint8)
    pieces.paste(np.full((1, 6, 8, 16), 9, np.uint8), planes)
    assert (planes[..., :8] == 9).all()
    assert (planes[..., 8:] == 0).all()


def test_symbols_of_other_tiles_are_left_out_in_each_step() -> None:
    pieces = Pieces([0], [Region(0, 0, 1, 2)], np.array([[[True, False]]]))
    both = pieces.only_coded(np.ones((1, 2, 4, 48), np.int32), 6)
    assert (both[0, :, :, 0] == [[1, 1, 0, 0], [1, 1, 0, 0]]).all()
    first = pieces.only_coded(np.ones((1, 2, 2, 4), np.int32), 0)
    assert (first[0, :, :, 0] == [[1, 0], [1, 0]]).all()


# --- Samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [any_picture(48, 64), grey_of(any_picture(48, 64)), screen(1, 64, 48)[0]],
                         ids=["noise", "grey", "text"])
def test_samples_are_without_loss_and_leave_other_tiles_alone(wanted: Picture) -> None:
    kinds, before = kinds_of("SS.S", "N.SS", "SSSS"), any_picture(48, 64)
    here, there = (Picture(*(plane.copy() for plane in before)) for _ in range(2))
    coder = Encoder()
    encode_samples(coder, kinds, here, wanted)
    decoder = Decoder(coder.finish())
    decode_samples(decoder, kinds, there)
    assert decoder.finished
    for mine, theirs, own, was, side in zip(here, there, wanted, before, (16, 8, 8), strict=True):
        sampled = (kinds == SAMPLES).repeat(side, 0).repeat(side, 1)
        assert (mine == theirs).all()
        assert (theirs[sampled] == own[sampled]).all()
        assert (theirs[~sampled] == was[~sampled]).all()


def test_noise_costs_hardly_more_than_its_eight_bits_a_sample() -> None:
    wanted = any_picture(64, 64)
    bits = bits_of(np.full((4, 4), SAMPLES, np.uint8), grey_of(wanted), wanted).sum()
    assert 8.0 < bits / (64 * 64 * 1.5) < 9.6


def test_what_tiles_cost_is_what_their_bytes_are() -> None:
    kinds, wanted = kinds_of("SSS.", "SSSS", ".SSS"), screen(1, 64, 48)[0]
    coder = Encoder()
    encode_samples(coder, kinds, grey_of(wanted), wanted)
    bits = bits_of(kinds, grey_of(wanted), wanted)
    assert bits.sum() / 8 == pytest.approx(len(coder.finish()), abs=4)
    assert (bits[kinds != SAMPLES] == 0).all()


def test_a_letter_costs_less_when_it_comes_again() -> None:
    letter = RNG.choice(np.array([20, 90, 230], np.uint8), (16, 16))
    y = np.full((16, 64), 230, np.uint8)
    y[:, :16] = y[:, 48:] = letter
    wanted = Picture(y, np.full((8, 32), 128, np.uint8), np.full((8, 32), 128, np.uint8))
    bits = bits_of(np.full((1, 4), SAMPLES, np.uint8), grey_of(wanted), wanted)[0]
    assert bits[3] < 0.6 * bits[0]


# --- The encoder's choice -------------------------------------------------------------------------------------------


def test_text_is_drawn_and_texture_is_not() -> None:
    tiles = drawn(screen(17)[-1])
    assert tiles.shape == (4, 6)
    assert not tiles[:2, 4:].any()
    assert tiles[:, :4].all()


def test_a_picture_with_few_drawn_tiles_has_none() -> None:
    picture = moving(1, 160, 160)[0]
    picture.y[:32, :32] = 200
    assert not drawn(picture).any()


def test_text_is_coded_by_samples_texture_by_the_networks_what_stands_still_not_at_all() -> None:
    first, second = screen(3)[1:]
    grey = grey_of(first)
    kinds = choose(first, grey, 16.0, 30.0, 0.04)
    assert (kinds[:2, 4:] == NETWORK).all()
    assert (kinds[:, :4] == SAMPLES).all()
    kinds = choose(second, first, 16.0, 30.0, 0.0)
    assert (kinds[:2, 4:] == NETWORK).all()
    assert (kinds[3] == COPY).all()
    assert (kinds == SAMPLES).sum() in (1, 2)


def test_moving_texture_is_left_to_the_networks() -> None:
    first, second = moving(2, 96, 96)
    assert (choose(first, grey_of(first), 16.0, 30.0, 0.04) == NETWORK).all()
    assert (choose(second, first, 16.0, 30.0, 0.04) == NETWORK).all()


def test_a_prediction_that_errs_little_is_copied_where_that_spares_most_of_the_picture() -> None:
    first, second = moving(1, 160, 160)[0], moving(1, 160, 160)[0]
    second.y[:16, :16] ^= 64
    kinds = choose(second, Picture(first.y ^ 1, first.u, first.v), 16.0, 30.0, 0.04)
    assert kinds[0, 0] == NETWORK
    assert (kinds == COPY).sum() == 99


# --- In streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(quality=44), Settings(quality=44, structure="low_delay"),
                                      Settings(quality=44, effort=1)], ids=["random_access", "low_delay", "effort-1"])
def test_a_screen_is_decoded_as_the_encoder_has_it(settings: Settings) -> None:
    clip = [crop(picture, 93, 61) for picture in screen(6)]
    encoded = NVC.encode(clip, info_of(clip), settings)
    decoded = list(NVC.decode(encoded.data))
    assert sha_of(decoded) == encoded.pictures_sha256
    assert encoded.details["bits"]["tiles"] > 0


def test_text_is_decoded_without_loss() -> None:
    clip = [crop(picture, 93, 61) for picture in screen(6)]
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=24, structure="intra"))
    for decoded, picture in zip(NVC.decode(encoded.data), clip, strict=True):
        assert (decoded.y[:, :48] == picture.y[:, :48]).all()


def test_no_network_runs_for_a_picture_that_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Picture(*(np.ascontiguousarray(plane[:, :plane.shape[1] * 2 // 3]) for plane in screen(1)[0]))
    clip = [text] * 5
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=40))
    monkeypatch.setattr(nvc.decoder, "reconstruct", lambda *_: pytest.fail("a network ran"))
    assert sha_of(NVC.decode(encoded.data)) == sha_of(clip)


def test_a_stream_of_version_4_says_so_and_has_no_tiles() -> None:
    data = (Path(__file__).resolve().parent / "streams/random-access.nvc").read_bytes()
    assert parse(data).header.version == 4
    assert parse(NVC.encode(moving(1), info_of(moving(1)), Settings()).data).header.version == 6


def test_tiles_that_are_longer_than_their_bytes_are_refused() -> None:
    clip = [pad(picture) for picture in screen(1)]
    whole = parse(NVC.encode(clip, info_of(clip), Settings(quality=40)).data)
    packet = whole.packets(whole.gops[0])[0]
    gop = GopWriter(whole.header)
    gop.add(encode.Packet(0, "I", (), packet.q, bytes(packet.payload[:20])))
    stream = Writer(whole.header)
    stream.add_gop(0, 1, gop.finish())
    with pytest.raises(BitstreamError, match="picture 0: its tiles are longer than its bytes"):
        list(NVC.decode(stream.finish()))
