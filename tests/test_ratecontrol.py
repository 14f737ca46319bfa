"""Probing for a target, where the answer to a step is known."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nvc.encoder.rate_control
from coding.interface import Progress, Settings, no_report
from nvc.encoder.rate_control import choose_quality
from video.picture import ClipInfo, Picture

FPS = 25
GREY = Picture(*(np.full((n, n), 128, np.uint8) for n in (16, 8, 8)))
INFO = ClipInfo(16, 16, Fraction(FPS))


def mbps_of(t: float, slack: float) -> float:
    """Halves with each 22 of t, in jumps of four steps; slack moves it without any."""
    return 2.0 ** (2 - 0.045 * (4 * math.floor(t / 4) + slack))


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """(t, slack) of each time that the clip is coded."""
    asked: list[tuple[float, float]] = []

    def coded(*_: Any, t: float, slack: float, **__: Any) -> SimpleNamespace:
        asked.append((t, slack))
        return SimpleNamespace(data=bytes(round(mbps_of(t, slack) * 1e6 / 8 / FPS)), details={})

    monkeypatch.setattr(nvc.encoder.rate_control, "encode_clip", coded)
    return asked


@pytest.mark.parametrize("target", [0.3, 0.64, 0.7, 1.0, 1.7])
def test_a_target_within_a_jump_is_met_by_slack_at_the_finer_step(probed: list[tuple[float, float]],
                                                                   target: float) -> None:
    settings = Settings(bitrate_mbps=target)
    encoded = choose_quality([GREY], INFO, settings, no_report, lambda a, b: 0.0)
    assert encoded.details["rate_control"]["met"]
    assert mbps_of(*probed[-1]) == pytest.approx(target, rel=0.02)
    assert mbps_of(probed[-1][0], 0.0) >= target * 0.98


def test_what_no_step_reaches_is_answered_by_the_nearest(probed: list[tuple[float, float]]) -> None:
    encoded = choose_quality([GREY], INFO, Settings(bitrate_mbps=1000.0), no_report, lambda a, b: 0.0)
    assert not encoded.details["rate_control"]["met"]
    assert len(encoded.data) == max(round(mbps_of(*p) * 1e6 / 8 / FPS) for p in probed)


def test_more_rate_is_never_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clip whose PSNR falls again where its rate rises beyond a bit a sample, the peak is given, and said."""
    quality: dict[str, float] = {}

    def coded(*_: Any, t: float, slack: float, **__: Any) -> SimpleNamespace:
        size = round(2.0 ** (12 - 0.05 * t))
        quality["now"] = 40 - abs(t + 5) / 4
        quality["best"] = max(quality.get("best", 0.0), quality["now"])
        return SimpleNamespace(data=bytes(size), details={"psnr": quality["now"]})

    def coded_and_watched(*arguments: Any, watch: Any, **named: Any) -> SimpleNamespace:
        made = coded(*arguments, **named)
        watch(0, GREY)
        return made

    monkeypatch.setattr(nvc.encoder.rate_control, "encode_clip", coded_and_watched)
    for settings in (Settings(bitrate_mbps=100.0), Settings(psnr_db=80.0)):
        encoded = choose_quality([GREY], INFO, settings, no_report,
                                 lambda a, b: quality["now"])
        assert not encoded.details["rate_control"]["met"]
        assert encoded.details["psnr"] == quality["best"]
        assert quality["best"] > 40 - 5 / 4  # which is that of the finest step there is a quality for


def test_progress_names_the_pass_and_never_runs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def coded(pictures: Any, info: Any, settings: Any, progress: Any, *, t: float, slack: float, **_: Any
              ) -> SimpleNamespace:
        for frame in (0, 50, 100):
            progress(Progress("encode", frame, 100))
        return SimpleNamespace(data=bytes(round(mbps_of(t, slack) * 1e6 / 8 / FPS)), details={})

    monkeypatch.setattr(nvc.encoder.rate_control, "encode_clip", coded)
    heard: list[Progress] = []
    choose_quality([GREY], INFO, Settings(bitrate_mbps=0.64), heard.append, lambda a, b: 0.0)
    assert [report.frame for report in heard] == sorted(report.frame for report in heard)
    assert {report.pass_number for report in heard} == set(range(1, heard[-1].pass_number + 1))
    assert heard[-1].frame < 100
