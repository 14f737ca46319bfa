"""The coded motion field: what goes in comes out, in few bits where motion is simple, and bad bytes do no harm."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.entropy.range_coder import Decoder, Encoder
from nvc.motion import neighbours, vector_contexts, vectors
from nvc.motion.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion.prediction import VECTOR_MAX, MotionField, Reference
from video.picture import Picture


def reference(height: int, width: int, field: MotionField | None = None) -> Reference:
    sizes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    return Reference(Picture(*(np.zeros(size, np.uint8) for size in sizes)), field)


def random_field(rng: np.random.Generator, rows: int, columns: int, spans: tuple[int, int], size: int) -> MotionField:
    """rows, columns: blocks of 16. Some blocks of 32 and 16 are of one motion."""
    shape = (rows * 2, columns * 2)
    modes = [FORWARD, INTRA] if spans[1] == 0 else [FORWARD, BACKWARD, BOTH, BOTH, INTRA]
    mode = rng.choice(modes, shape).astype(np.uint8)
    vectors_ = rng.integers(-size, size + 1, (*shape, 2, 2)).astype(np.int16)
    for n in (2, 4):
        for i in range(0, shape[0], n):
            for j in range(0, shape[1], n):
                if rng.random() < 0.5:
                    mode[i:i + n, j:j + n] = mode[i, j]
                    vectors_[i:i + n, j:j + n] = vectors_[i, j]
    return MotionField(mode, vectors_, spans)


def through(field: MotionField, references: list[Reference]) -> tuple[MotionField, MotionField, bytes]:
    encoder = Encoder()
    sent = vectors.encode_field(encoder, field, references)
    data = encoder.finish()
    decoder = Decoder(data)
    got = vectors.decode_field(decoder, field.spans, references)
    assert decoder.finished
    return sent, got, data


def assert_same_motion(a: MotionField, b: MotionField) -> None:
    """Modes, and the vectors that they use."""
    assert np.array_equal(a.mode, b.mode)
    for k in range(2):
        used = (a.mode == k) | (a.mode == BOTH)
        assert np.array_equal(a.vectors[used, k], b.vectors[used, k])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32), st.sampled_from([0, 3, 40, VECTOR_MAX]),
       st.sampled_from([(1, 0), (8, 0), (4, -4), (1, -3), (1, 2), (-2, 5), (200, -1)]))
def test_fields_come_back(rows, columns, seed, size, spans):
    rng = np.random.default_rng(seed)
    theirs = [random_field(rng, rows, columns, other, size) for other in ((5, 0), (3, -2))]
    references = [reference(rows * 16, columns * 16, f) for f in theirs][: 2 if spans[1] else 1]
    field = random_field(rng, rows, columns, spans, size)
    sent, got, data = through(field, references)
    assert_same_motion(field, sent)
    assert np.array_equal(sent.mode, got.mode)
    assert np.array_equal(sent.vectors, got.vectors)
    assert abs(vectors.field_bits(field, references) - 8 * len(data)) < 12 + 0.003 * 8 * len(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.binary(max_size=200), st.sampled_from([(3, 0), (4, -4), (1, 2)]))
def test_bad_bytes_give_some_allowed_field(rows, columns, data, spans):
    references = [reference(rows * 16, columns * 16)] * (2 if spans[1] else 1)
    field = vectors.decode_field(Decoder(data), spans, references)
    assert field.mode.shape == (rows * 2, columns * 2)
    assert field.mode.max() <= INTRA
    assert spans[1] or set(np.unique(field.mode)) <= {FORWARD, INTRA}
    assert np.abs(field.vectors.astype(int)).max() <= VECTOR_MAX


def test_no_motion_is_nearly_free():
    field = MotionField(np.full((36, 44), BOTH, np.uint8), np.zeros((36, 44, 2, 2), np.int16), (4, -4))
    _, _, data = through(field, [reference(288, 352)] * 2)
    assert len(data) < 0.02 / 8 * 36 * 44 + 1             # 0.02 bit for each block of 8x8


def test_tally_counts_what_is_coded():
    """A whole block of 32 that merges: not split, merged, the first and only candidate."""
    field = MotionField(np.full((36, 44), BOTH, np.uint8), np.zeros((36, 44, 2, 2), np.int16), (4, -4))
    counts = vectors.tally(field, [reference(288, 352)] * 2)
    split, merge = counts[vector_contexts.C_SPLIT:][:6], counts[vector_contexts.C_MERGE:][:9]
    assert split.sum(0).tolist() == [99, 0]
    assert merge.sum(0).tolist() == [0, 99]
    assert counts.sum() == 198


def test_motion_as_of_the_reference_is_nearly_free():
    """Whatever moved steadily goes on: the reference's vectors, halved and mirrored."""
    rng = np.random.default_rng(1)
    smooth = np.repeat(np.repeat(rng.integers(-20, 20, (9, 11, 2)) * 2, 4, 0), 4, 1)
    theirs = np.zeros((36, 44, 2, 2), np.int16)
    theirs[:, :, 0] = smooth
    forward = MotionField(np.zeros((36, 44), np.uint8), theirs, (8, 0))
    ours = np.stack([smooth // 2, -smooth // 2], axis=2).astype(np.int16)
    _, _, data = through(MotionField(np.full((36, 44), BOTH, np.uint8), ours, (4, -4)),
                         [reference(288, 352), reference(288, 352, forward)])
    assert len(data) < 40


def test_one_vector_everywhere_costs_as_much_as_one_block():
    field = MotionField(np.zeros((36, 44), np.uint8), np.full((36, 44, 2, 2), 77, np.int16), (1, 0))
    _, _, data = through(field, [reference(288, 352)])
    assert len(data) < 12


def test_the_unused_vector_is_filled_in_on_a_straight_line():
    mode = np.full((2, 2), FORWARD, np.uint8)
    mode[1] = BACKWARD
    given_ = np.zeros((2, 2, 2, 2), np.int16)
    given_[0, :, 0] = (8, -5)
    given_[1, :, 1] = (6, 1)
    sent, _, _ = through(MotionField(mode, given_, (2, -4)), [reference(16, 16)] * 2)
    assert sent.vectors[0, 0].tolist() == [[8, -5], [-16, 10]]
    assert sent.vectors[1, 0].tolist() == [[-3, 0], [6, 1]]


@pytest.mark.parametrize(("spans", "count"), [((0, 0), 1), ((1, 2), 1), ((1, 0), 2), ((0, 1), 2)])
def test_spans_that_do_not_fit_the_references_are_refused(spans, count):
    field = MotionField(np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2, 2), np.int16), spans)
    with pytest.raises(ValueError, match=f"spans must be non-zero for each of {count} references"):
        vectors.encode_field(Encoder(), field, [reference(16, 16)] * count)
    with pytest.raises(ValueError, match=f"spans must be non-zero for each of {count} references"):
        vectors.decode_field(Decoder(b""), spans, [reference(16, 16)] * count)


@pytest.mark.parametrize("mode", [BACKWARD, BOTH, 4])
def test_a_mode_that_the_references_do_not_allow_is_refused(mode):
    field = MotionField(np.full((2, 2), mode, np.uint8), np.zeros((2, 2, 2, 2), np.int16), (1, 0))
    with pytest.raises(ValueError, match="field has modes that 1 references do not allow"):
        vectors.encode_field(Encoder(), field, [reference(16, 16)])


def test_a_vector_beyond_the_limit_is_refused():
    field = MotionField(np.zeros((2, 2), np.uint8), np.full((2, 2, 2, 2), -VECTOR_MAX - 1, np.int16), (1, 0))
    with pytest.raises(ValueError, match="vectors must be within 8191 quarter samples"):
        vectors.encode_field(Encoder(), field, [reference(16, 16)])


def grid_with(**motions: list[int]) -> np.ndarray:
    """A grid of 4x4 blocks, nothing coded but neighbours of the 16x16 at row 2, column 2: mode, v0y, v0x, v1y, v1x."""
    places = {"left": (3, 1), "up": (1, 3), "up_right": (1, 4), "down_left": (4, 1), "up_left": (1, 1)}
    grid = neighbours.empty_grid(4, 4)
    for name, motion in motions.items():
        y, x = places[name]
        grid[y + neighbours.TOP, x + neighbours.LEFT, :5] = motion
    return grid


def offered(grid: np.ndarray, temporal: list[int] | None, spans: tuple[int, int]) -> list[list[int]]:
    """Candidates of the block of 16 at row 2, column 2."""
    from_references = np.zeros((4, 4, 5), np.int16)
    from_references[..., neighbours.MODE] = neighbours.NONE
    if temporal:
        from_references[3, 3] = temporal
    found = np.zeros((vector_contexts.CANDIDATES, 5), np.int64)
    count = neighbours.candidates(grid, from_references, np.array(spans), np.int64(2), np.int64(2), np.int64(2), found)
    return found[:count].tolist()


def test_candidates_come_in_this_order_without_doubles() -> None:
    grid = grid_with(left=[FORWARD, 1, 1, -1, -1], up=[BOTH, 2, 2, 3, 3], up_left=[FORWARD, 1, 1, -1, -1])
    assert offered(grid, [BOTH, 4, 4, -4, -4], (1, -1)) == [
        [FORWARD, 1, 1, -1, -1],
        [BOTH, 2, 2, 3, 3],
        [BOTH, 4, 4, -4, -4],
        [BOTH, 1, 1, 3, 3],         # the past of the first, the future of the second
        [BOTH, 0, 0, 0, 0],
    ]


def test_a_pair_is_left_out_where_the_list_would_be_too_long() -> None:
    grid = grid_with(left=[0, 1, 1, 0, 0], up=[0, 2, 2, 0, 0], up_right=[0, 3, 3, 0, 0], down_left=[0, 4, 4, 0, 0],
                     up_left=[0, 5, 5, 0, 0])
    assert [c[1] for c in offered(grid, [BOTH, 6, 6, 6, 6], (1, -1))] == [1, 2, 6, 3, 4, 5, 0]


def test_where_nothing_is_known_the_only_candidate_stands_still() -> None:
    assert offered(grid_with(up=[INTRA, 0, 0, 0, 0]), None, (1, 0)) == [[FORWARD, 0, 0, 0, 0]]


@pytest.mark.parametrize(("difference", "spans", "second"), [(8, (2, -2), 96), (8, (2, -4), 92), (-8, (4, -2), 102),
                                                             (VECTOR_MAX, (1, 200), VECTOR_MAX)])
def test_the_second_vector_follows_half_of_the_firsts_difference(difference, spans, second):
    assert neighbours.second_prediction(np.int64(100), np.int64(difference), np.array(spans)) == second
