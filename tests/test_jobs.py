"""The experiment document, the table of a run's life, and the rules for trying again."""

import itertools
from pathlib import Path

import pytest

from service.jobs.fields import FieldError, changed, count_runs, is_grid, read_request, request_schema, runs_of
from service.jobs.states import (
    TABLE,
    TERMINAL,
    UNFINISHED,
    Blame,
    Event,
    NoSuchMove,
    State,
    backoff_s,
    blame_for_error,
    experiment_state,
    new_experiment_id,
    next_state,
    picture,
    run_id,
    secrets,
    timestamp,
    verdict,
)

DEFAULTS = {
    "clip": "carphone", "codec": "nvc", "model": "nvc-1", "quality": 32, "frames": None, "first_frame": 0,
    "structure": "random_access", "intra_period": 64, "effort": 0, "preset": None,
    "bitrate_mbps": None, "psnr_db": None,
    "measures": ["psnr", "ssim", "ms_ssim"], "segments": None, "device": "auto", "timeout_s": 600,
    "keep_reconstruction": True, "label": "", "tags": {},
}


def refusal(document: object) -> FieldError:
    with pytest.raises(FieldError) as caught:
        read_request(document)
    return caught.value


# --- the document


def test_an_empty_request_is_filled_in_with_the_defaults() -> None:
    assert read_request({}) == DEFAULTS


def test_the_documented_request_is_accepted_as_it_stands() -> None:
    assert read_request(DEFAULTS) == DEFAULTS


def test_a_given_field_replaces_its_default_only() -> None:
    assert read_request({"effort": 2}) == DEFAULTS | {"effort": 2}


def test_two_requests_do_not_share_their_tags() -> None:
    read_request({})["tags"]["a"] = "b"
    assert read_request({})["tags"] == {}


def test_an_unknown_field_is_refused_by_name() -> None:
    error = refusal({"qualty": 3})
    assert error.field == "qualty"
    assert str(error).startswith("qualty: no such field; known are clip, codec, model, quality,")


@pytest.mark.parametrize("document", [[], None, "x", 3, True])
def test_a_request_that_is_no_object_is_refused(document: object) -> None:
    assert refusal(document).field == ""


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("quality", "32", 'expected an integer from 0 to 63 or null, got \'32\''),
    ("quality", 64, "expected an integer from 0 to 63 or null, got 64"),
    ("quality", -1, "expected an integer from 0 to 63 or null, got -1"),
    ("quality", 3.5, "expected an integer from 0 to 63 or null, got 3.5"),
    ("quality", True, "expected an integer from 0 to 63 or null, got true"),
    ("intra_period", [1, 2], "expected an integer from 1 to 65535, got an array"),
    ("quality", [], "expected an integer from 0 to 63 or null, or a list of at least one such value; got an "
                    "empty list"),
    ("quality", [1, 64], "expected an integer from 0 to 63 or null, got 64"),
    ("quality", [1, None], "expected a list of values; null stands only alone"),
    ("quality", [1, 2, 1.0], "expected different values in the list, got 1 twice"),
    ("clip", ["carphone", ["bikes"]], "expected a library name, sha256: and 64 hexadecimal digits, an https:// "
                                      "address, or s3://bucket/key, got an array"),
    ("quality", 10**400, "expected an integer from 0 to 63 or null, got 1" + "0" * 56 + "..."),
    ("effort", None, "expected an integer from -1 to 3, got null"),
    ("effort", float("nan"), "expected an integer from -1 to 3, got nan"),
    ("timeout_s", float("inf"), "expected a number from 1 to 86400, got inf"),
    ("bitrate_mbps", 0, "expected a number from 0.0001 to 10000 or null, got 0"),
    ("frames", 0, "expected an integer from 1 to 1000000 or null, got 0"),
    ("structure", "ipp", "expected one of intra, low_delay, random_access, got 'ipp'"),
    ("device", "tpu", "expected one of auto, cpu, cuda, got 'tpu'"),
    ("keep_reconstruction", 1, "expected true or false, got 1"),
    ("label", "x" * 201, "expected a string of at most 200 characters, got '" + "x" * 56 + "..."),
    ("label", "\ud800", "expected a string of at most 200 characters, got '\\ud800'"),
    ("tags", ["a"], "expected an object of at most 32 strings of at most 200 characters, got an array"),
    ("tags", {"a": 1}, "tag a: expected a string of at most 200 characters, got 1"),
    ("codec", "../nvc", "expected a name of at most 64 letters, digits, dots, hyphens and underscores, got '../nvc'"),
])
def test_a_wrong_value_is_refused_with_what_was_expected(field: str, value: object, expected: str) -> None:
    assert str(refusal({field: value})) == f"{field}: {expected}"


def test_a_whole_number_written_with_a_point_is_an_integer() -> None:
    assert repr(read_request({"quality": 20.0})["quality"]) == "20"


@pytest.mark.parametrize("clip", ["carphone", "my-clip_1.y4m", "sha256:" + "0f" * 32, "https://example.org/a.mkv",
                                  "https://example.org:8443/a%20b.mkv?x=1"])
def test_a_clip_is_a_library_name_a_hash_or_an_https_address(clip: str) -> None:
    assert read_request({"clip": clip})["clip"] == clip


@pytest.mark.parametrize("clip", ["", "a/b", "../x", ".hidden", "sha256:0f", "sha256:" + "0F" * 32, "http://a/b",
                                  "https://", "https://u:p@h/x", "https://h:0/", "https://h:65536/", "https://a b/", "https://a/\x00",
                                  "https://[1", "file:///etc/passwd", "a\n", "x" * 101])
def test_any_other_clip_is_refused(clip: str) -> None:
    assert refusal({"clip": clip}).field == "clip"


def test_another_aim_takes_the_place_of_quality() -> None:
    filled = read_request({"bitrate_mbps": 0.5})
    assert (filled["quality"], filled["bitrate_mbps"], filled["psnr_db"]) == (None, 0.5, None)


def test_null_aims_are_aims_not_given() -> None:
    filled = read_request({"quality": None, "psnr_db": None})
    assert (filled["quality"], filled["bitrate_mbps"], filled["psnr_db"]) == (32, None, None)


@pytest.mark.parametrize("pair", [*itertools.combinations(("quality", "bitrate_mbps", "psnr_db"), 2)])
def test_two_aims_are_refused(pair: tuple[str, str]) -> None:
    error = refusal({pair[0]: 30, pair[1]: 30})
    assert str(error) == f"{pair[1]}: give exactly one of quality, bitrate_mbps, psnr_db; {pair[0]} is given too"


def test_the_schema_lists_every_field_and_no_other() -> None:
    schema = request_schema()
    every = DEFAULTS | {"psnr_range": None, "points": 5}
    assert (list(schema["properties"]), schema["additionalProperties"]) == (list(every), False)
    assert {name: field["default"] for name, field in schema["properties"].items()} == every


def test_an_experiment_without_lists_has_one_run_that_bears_its_name() -> None:
    assert runs_of(read_request({})) == [DEFAULTS]


def test_lists_make_a_grid_in_which_quality_varies_fastest() -> None:
    runs = runs_of(read_request({"clip": ["bikes", "carphone"], "codec": ["nvc", "x264"], "quality": [8, 9]}))
    assert [(run["clip"], run["codec"], run["quality"]) for run in runs] == [
        ("bikes", "nvc", 8), ("bikes", "nvc", 9), ("bikes", "x264", 8), ("bikes", "x264", 9),
        ("carphone", "nvc", 8), ("carphone", "nvc", 9), ("carphone", "x264", 8), ("carphone", "x264", 9)]
    assert all(read_request(run) == run for run in runs)


def test_a_list_of_one_is_a_grid_of_one_run() -> None:
    document = read_request({"effort": [2]})
    assert (is_grid(document), count_runs(document), runs_of(document)) == (
        True, 1, [DEFAULTS | {"effort": 2}])


def test_a_grid_of_a_thousand_runs_is_the_largest() -> None:
    wanted = {"quality": list(range(50)), "effort": [0, 1, 2, 3]}
    models = [f"m{n}" for n in range(6)]
    assert count_runs(read_request(wanted | {"model": models[:5]})) == 1000
    assert str(refusal(wanted | {"model": models})) == (
        "quality: the lists make 1200 runs; at most 1000 were expected")


def test_qualities_and_another_aim_are_refused_together() -> None:
    assert refusal({"quality": [1, 2], "psnr_db": 40}).field == "psnr_db"


def test_a_range_of_psnr_stands_for_a_list() -> None:
    assert read_request({"psnr_range": [32, 42], "points": 5}) == DEFAULTS | {
        "quality": None, "psnr_db": [32, 34.5, 37, 39.5, 42]}
    assert read_request({"psnr_range": [30.0, 40.0]})["psnr_db"] == [30, 32.5, 35, 37.5, 40]


@pytest.mark.parametrize(("document", "words"), [
    ({"psnr_range": [42, 32]}, "psnr_range: expected two numbers from 10 to 80, the lower one first or null, got an"),
    ({"psnr_range": [32]}, "psnr_range: expected two numbers"),
    ({"psnr_range": [32, 99]}, "psnr_range: expected a number from 10 to 80"),
    ({"psnr_range": 32}, "psnr_range: expected two numbers"),
    ({"points": 5}, "points: is for psnr_range, which is not given"),
    ({"psnr_range": [32, 42], "points": 1}, "points: expected an integer from 2 to 50, got 1"),
    ({"psnr_range": [32, 42], "quality": 9}, "psnr_range: give exactly one of quality, bitrate_mbps, psnr_db, "),
])
def test_a_wrong_range_is_refused(document: dict[str, object], words: str) -> None:
    assert str(refusal(document)).startswith(words)


def test_bit_rates_may_be_a_list() -> None:
    runs = runs_of(read_request({"bitrate_mbps": [0.5, 1]}))
    assert [(run["bitrate_mbps"], run["quality"]) for run in runs] == [(0.5, None), (1, None)]


@pytest.mark.parametrize("value", [[], ["psnr", "psnr"], ["beauty"], "vmaf", [["psnr"]]])
def test_wrong_measures_are_refused(value: object) -> None:
    assert str(refusal({"measures": value})).startswith(
        "measures: expected a list of one or more, each once, of psnr, ssim, ms_ssim, vmaf, vmaf_neg, xpsnr, got ")


def test_measures_are_kept_in_one_order() -> None:
    assert read_request({"measures": ["vmaf", "psnr"]})["measures"] == ["psnr", "vmaf"]


def test_changes_replace_fields_and_an_aim_replaces_the_aim() -> None:
    original = read_request({"quality": 9, "label": "mine"})
    assert read_request(changed(original, {"effort": 3})) == original | {"effort": 3}
    assert read_request(changed(original, {"psnr_db": 40})) == original | {"quality": None, "psnr_db": 40}
    assert run_id("exp_1_abcdef", 0, 1) == "exp_1_abcdef"


# --- the table

MOVES = {
    ("queued", "place"): "dispatched", ("queued", "fail"): "failed", ("queued", "cancel"): "cancelled",
    ("dispatched", "start"): "running", ("dispatched", "requeue"): "queued", ("dispatched", "complete"): "completed",
    ("dispatched", "fail"): "failed", ("dispatched", "cancel"): "cancelled",
    ("running", "requeue"): "queued", ("running", "complete"): "completed", ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(State, Event)])
def test_every_pair_of_state_and_event_moves_as_listed_or_not_at_all(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert next_state(state, event) == MOVES[state, event]
    else:
        with pytest.raises(NoSuchMove, match=f"a run that is {state} cannot {event}"):
            next_state(state, event)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_states_absorb(state: State) -> None:
    assert [event for event in Event if (state, event) in TABLE] == []


def test_every_state_reaches_an_end() -> None:
    assert [state for state in UNFINISHED if (state, Event.CANCEL) not in TABLE] == []


def test_each_event_leads_to_one_state() -> None:
    targets = {event: {target for (_, cause), target in TABLE.items() if cause is event} for event in Event}
    assert [event for event, states in targets.items() if len(states) != 1] == []


def test_the_picture_in_the_docs_is_printed_from_the_table() -> None:
    assert (Path(__file__).parent.parent / "docs" / "states.md").read_text() == picture()


@pytest.mark.parametrize(("runs", "whole"), [
    (["queued"], "queued"), (["dispatched"], "dispatched"), (["running"], "running"), (["completed"], "completed"),
    (["failed"], "failed"), (["cancelled"], "cancelled"), (["queued", "dispatched"], "dispatched"),
    (["queued", "completed"], "running"), (["failed", "completed"], "completed"), (["failed", "cancelled"], "failed"),
])
def test_an_experiments_state_follows_from_its_runs(runs: list[str], whole: str) -> None:
    assert experiment_state([State(run) for run in runs]) == whole


# --- trying again


@pytest.mark.parametrize(("blame", "tries", "returns", "event"), [
    (Blame.RUN, 1, 0, "fail"),
    (Blame.WORKER, 1, 0, "requeue"), (Blame.WORKER, 2, 0, "requeue"), (Blame.WORKER, 3, 0, "fail"),
    (Blame.NOBODY, 0, 1, "requeue"), (Blame.NOBODY, 2, 49, "requeue"), (Blame.NOBODY, 0, 50, "fail"),
])
def test_who_is_to_blame_decides_whether_a_run_tries_again(blame: Blame, tries: int, returns: int, event: str) -> None:
    assert verdict(blame, tries, returns) == event


@pytest.mark.parametrize(("error", "blame"), [
    ({"type": "damaged-video", "retry": False}, "run"), ({"type": "damaged-video"}, "run"),
    ({"type": "out-of-memory", "retry": True}, "worker"), ({"type": "handed-back", "retry": True}, "nobody"),
])
def test_a_reported_error_says_who_is_to_blame(error: dict, blame: str) -> None:
    assert blame_for_error(error) == blame


def test_the_back_off_doubles_up_to_its_cap() -> None:
    assert [backoff_s(tries, uniform=lambda low, high: high) for tries in (1, 2, 3, 6, 10_000)] == [
        1.0, 2.0, 4.0, 30.0, 30.0]


def test_the_back_off_has_full_jitter() -> None:
    assert backoff_s(3, uniform=lambda low, high: low) == 0.0


def test_the_back_off_is_never_shorter_than_the_other_side_asked_for() -> None:
    assert backoff_s(1, retry_after_s=7.0) == 7.0


# --- names and times


def test_an_id_holds_the_time_and_six_digits() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda size: "9f3ac2")
        assert new_experiment_id(1760728570.9) == "exp_1760728570_9f3ac2"


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(1760728570.25) == "2025-10-17T19:16:10.250Z"
    assert timestamp(None) is None
