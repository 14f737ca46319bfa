"""The bench of speed beside other learned codecs: turns, spreads, and the process that has the other codecs."""

import stat
import sys
from pathlib import Path

import pytest

from bench import speed

SEEN = {"encode_s": 0.5, "decode_s": 0.25, "bytes": 100}


def python_that(tmp_path: Path, *lines: str) -> str:
    """Stands for the Python of the other environment: it runs these lines, whatever it is told to run."""
    program = tmp_path / "python"
    program.write_text("\n".join([f"#!{sys.executable}", "import json, os, sys", *lines]))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_frames_a_second_have_their_spread() -> None:
    runs = [{**SEEN, "encode_s": seconds} for seconds in (0.5, 0.4, 1.0)]
    assert speed.summary(runs, 4, 1000) == {
        "pictures": 4,
        "encode_fps": {"median": 8.0, "lowest": 4.0, "highest": 10.0, "runs": [8.0, 10.0, 4.0]},
        "decode_fps": {"median": 16.0, "lowest": 16.0, "highest": 16.0, "runs": [16.0, 16.0, 16.0]},
        "bpp": 0.2,
    }


def test_codecs_take_turns_and_the_first_does_not_count() -> None:
    order = []

    def named(name: str) -> speed.Once:
        def once() -> dict[str, float]:
            order.append(name)
            return {**SEEN, "bytes": len(order)}

        return once

    made, left_out = speed.in_turn({"a": named("a"), "b": named("b")}, 2)
    assert "".join(order) == "ababab"
    assert [run["bytes"] for run in made["b"]] == [4, 6]
    assert left_out == {}


def test_a_codec_that_fails_is_left_out_and_the_others_go_on() -> None:
    def fails() -> dict[str, float]:
        raise speed.OtherFailed("no such package")

    made, left_out = speed.in_turn({"a": fails, "b": lambda: SEEN}, 2)
    assert made == {"b": [SEEN, SEEN]}
    assert left_out == {"a": "no such package"}


def test_the_other_process_is_asked_line_by_line(tmp_path: Path) -> None:
    answer = "print(json.dumps({'told': sys.argv[2:], 'asked': json.loads(line), 'id': os.getpid()}), flush=True)"
    python = python_that(tmp_path, "for line in sys.stdin:", f"    {answer}")
    with speed.Other(python, "ssf2020", 2) as other:
        first, again = other.once(Path("a.npy"), 4), other.once(Path("b.npy"), 3)
    assert first["told"] == ["ssf2020", "--threads", "2"]
    assert (first["asked"], again["asked"]) == ({"file": "a.npy", "pictures": 4}, {"file": "b.npy", "pictures": 3})
    assert first["id"] == again["id"]


def test_the_other_process_has_the_last_word(tmp_path: Path) -> None:
    python = python_that(tmp_path, "import nothing_of_this_name")
    with speed.Other(python, "ssf2020", 1) as other:
        for _ in range(2):
            with pytest.raises(speed.OtherFailed, match="No module named 'nothing_of_this_name'"):
                other.once(Path("a.npy"), 1)
