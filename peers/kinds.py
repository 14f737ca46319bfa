"""The codecs to be compared with: what each has of its own, and the options that its encoder is opened with.

Settings.      One pass, preset medium or its like, tuned for PSNR, constant quality; closed GOPs of ``intra_period``
               pictures, with the encoder's own scene-cut detection as it is by default.

    quality    0…63: the CRF or QP in KINDS, at which PSNR is about nvc's at the same quality (fitted by bench/scales.py
               on training clips).  ``options["crf"]``, or ``options["qp"]`` of rav1e and vvenc, rules over it, and
               ``bitrate_mbps`` over both (one pass, average bit rate); ``psnr_db`` is searched for (peers/search.py).
    structure  intra: intra pictures only.  low_delay: no picture refers to a later one.  random_access: the default.
    effort     -1…3: one of five presets, see KINDS.  ``preset`` names another, and rules over it.
    options    crf or qp; preset, tune (as the encoder names them); params (x264-params and the like,
               "key=value:key=value").
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from coding.interface import STRUCTURES, Settings, SettingsError

MAX_QUALITY, MIN_EFFORT, MAX_EFFORT = 63, -1, 3
QUALITY_STEP = 9
QUALITIES = range(0, MAX_QUALITY + 1, QUALITY_STEP)  # of the tables in KINDS
SVT_TUNES = {"vq": "0", "psnr": "1", "ssim": "2"}

Options = tuple[dict[str, str], list[str]]  # for the encoder's own interface; "key=value" for its library


@dataclass(frozen=True)
class Kind:
    """What one peer has of its own."""

    library: str  # FFmpeg's name of the encoder
    coded_as: str  # FFmpeg's name of the format
    worst: int  # the largest CRF or QP; 0 is the best
    scale: tuple[float, ...]  # CRF or QP at each of QUALITIES; straight between them
    whole: bool  # the encoder takes whole numbers only
    presets: tuple[str, str, str, str, str]  # for effort -1…3
    every_preset: tuple[str, ...]
    preset_option: str
    params_option: str  # the option that carries "key=value:…", "" where there is none
    align: int  # sizes must be multiples of this
    min_side: int
    own: Callable[[Settings, int, str], Options]  # of settings, intra period (1: intra only), tune
    constant: str = "crf"  # the option of constant quality
    program: bool = False  # encoded by the FFmpeg program, since PyAV's build lacks the encoder
    depths: tuple[int, ...] = (8, 10)  # that the encoder takes
    file_name: str = ""  # how the library's file name begins, to ask it for its version
    version: Callable[[ctypes.CDLL, str], str] | None = None
    remove_units: str = ""  # bit stream filter that takes out the encoder's text
    deep: tuple[tuple[str, str], ...] = ()  # options that more than 8 bits need
    headers_in_pictures: bool = False  # parameter sets are in the packets, and need not be counted again

    def coded_bits(self, bits: int) -> int:
        """The depth that pictures of so many bits are coded with: the smallest that holds them."""
        return min((depth for depth in self.depths if depth >= bits), default=max(self.depths))

    def constant_at(self, quality: int) -> float:
        """CRF or QP at a quality, 0…63."""
        below = min(quality // QUALITY_STEP, len(QUALITIES) - 2)
        share = quality / QUALITY_STEP - below
        return round((1 - share) * self.scale[below] + share * self.scale[below + 1], 2)


def _call(name: str) -> Callable[[ctypes.CDLL, str], str]:
    """Ask a C function without arguments for the version."""

    def ask(library: ctypes.CDLL, file: str) -> str:
        function = getattr(library, name)
        function.restype = ctypes.c_char_p
        return cast(bytes, function()).decode()

    return ask


def _h26x(settings: Settings, period: int, tune: str) -> dict[str, str]:
    return {"g": str(period), "tune": tune, **({"bf": "0"} if settings.structure == "low_delay" else {})}


def _x264(settings: Settings, period: int, tune: str) -> Options:
    # Without cpu-independent, settings that are the same give other bytes now and then, even with one thread.
    return _h26x(settings, period, tune), ["cpu-independent=1"]


def _x265(settings: Settings, period: int, tune: str) -> Options:
    params = [f"keyint={period}", "open-gop=0", "info=0", "log-level=none"]
    if settings.threads:
        params += [f"pools={settings.threads}", f"frame-threads={min(settings.threads, 4)}"]
    return _h26x(settings, period, tune), params


def _svtav1(settings: Settings, period: int, tune: str) -> Options:
    params = [f"tune={SVT_TUNES.get(tune, tune)}"]
    if settings.threads:
        params.append(f"lp={settings.threads}")
    if settings.structure == "low_delay":
        params.append("pred-struct=1")
    return {"g": str(period)}, params


def _vp9(settings: Settings, period: int, tune: str) -> Options:
    return {
        "g": str(period), "deadline": "good", "row-mt": "1", "auto-alt-ref": "1", "tune": tune,
        "lag-in-frames": "25" if settings.structure == "random_access" else "0",
        "b": str(round((settings.bitrate_mbps or 0) * 1e6)),  # 0: quality alone
    }, []  # fmt: skip


def _aom(settings: Settings, period: int, tune: str) -> Options:
    return {
        "g": str(period if period > 1 else 0), "usage": "good" if period > 1 else "allintra", "row-mt": "1",
        "tune": tune, "lag-in-frames": "35" if settings.structure == "random_access" else "0",
        "b": str(round((settings.bitrate_mbps or 0) * 1e6)),
    }, []  # fmt: skip


def _rav1e(settings: Settings, period: int, tune: str) -> Options:
    params = [f"tune={tune}"]
    return {"g": str(period)}, [*params, *(["low_latency=true"] if settings.structure == "low_delay" else [])]


def _vvenc(settings: Settings, period: int, tune: str) -> Options:
    if settings.structure == "low_delay":
        raise SettingsError("structure: vvenc has no low_delay with intra pictures; expected intra or random_access")
    # GOPs that begin with their first picture (poc0idr) and are closed.
    params = ["poc0idr=1", f"intraperiod={period}", "decodingrefreshtype=idr_no_radl"]
    return {"qpa": str(int(tune != "psnr")), **({"g": "1"} if period == 1 else {})}, params if period > 1 else []


_H26X_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
                 "placebo")  # fmt: skip


def _numbers(last: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(last + 1))


KINDS = {
    "x264": Kind(
        library="libx264", coded_as="h264", whole=False, own=_x264,
        worst=51, scale=(45.8, 41.5, 37.2, 33, 29.1, 25.9, 22.8, 20),
        presets=("fast", "medium", "slow", "slower", "veryslow"), every_preset=_H26X_PRESETS, preset_option="preset",
        params_option="x264-params", align=2, min_side=2, file_name="libx264",
        remove_units="filter_units=remove_types=6",  # SEI
        version=lambda library, file: f"core {file.rpartition('.so.')[2]}",
    ),
    "x265": Kind(
        library="libx265", coded_as="hevc", depths=(8, 10, 12), whole=False, own=_x265,
        worst=51, scale=(45.5, 40.9, 36.3, 32.1, 28.1, 24.7, 21.1, 17.5),
        presets=("fast", "medium", "slow", "slower", "veryslow"), every_preset=_H26X_PRESETS, preset_option="preset",
        params_option="x265-params", align=2, min_side=16, file_name="libx265",
        version=lambda library, file: (ctypes.c_char_p.in_dll(library, "x265_version_str").value or b"").decode(),
    ),
    "svtav1": Kind(
        library="libsvtav1", coded_as="av1", whole=True, own=_svtav1,
        worst=63, scale=(63, 63, 60.9, 56.7, 48.3, 38.3, 28.9, 19.2),
        presets=("10", "8", "6", "4", "2"), every_preset=_numbers(13), preset_option="preset",
        params_option="svtav1-params", align=1, min_side=64, file_name="libSvtAv1Enc",
        version=_call("svt_av1_get_version"),
    ),
    "vp9": Kind(
        library="libvpx-vp9", coded_as="vp9", depths=(8, 10, 12), whole=True, own=_vp9,
        worst=63, scale=(63, 63, 59.5, 52.4, 45.2, 38.5, 31.7, 25),
        presets=("4", "2", "1", "1", "0"), every_preset=_numbers(8), preset_option="cpu-used", params_option="",
        align=1, min_side=1, deep=(("profile", "2"),), file_name="libvpx", version=_call("vpx_codec_version_str"),
    ),
    "aom": Kind(
        library="libaom-av1", coded_as="av1", depths=(8, 10, 12), whole=True, own=_aom, program=True,
        worst=63, scale=(63, 62.9, 60, 55, 46.3, 37.4, 28.9, 19.8),
        presets=("8", "6", "4", "3", "2"), every_preset=_numbers(8), preset_option="cpu-used",
        params_option="aom-params",
        align=1, min_side=1,
    ),
    "rav1e": Kind(
        library="librav1e", coded_as="av1", depths=(8, 10, 12), whole=True, own=_rav1e, program=True, constant="qp",
        worst=255, scale=(251.9, 217.3, 190.1, 163.2, 135.9, 110.2, 80.8, 51.5),
        presets=("8", "6", "4", "3", "2"), every_preset=_numbers(10), preset_option="speed",
        params_option="rav1e-params",
        align=1, min_side=16,
    ),
    "vvenc": Kind(
        library="libvvenc", coded_as="vvc", whole=True, own=_vvenc, program=True, constant="qp",
        worst=63, scale=(48.4, 43.7, 39.2, 34.8, 30.6, 27, 23.5, 20),
        presets=("faster", "faster", "fast", "medium", "slow"),
        every_preset=("faster", "fast", "medium", "slow", "slower"),
        preset_option="preset", params_option="vvenc-params", align=8, min_side=64, depths=(10,),
        headers_in_pictures=True,
    ),
}  # fmt: skip


def encoder_options(name: str, settings: Settings) -> dict[str, str]:
    """The options that the encoder is opened with, as FFmpeg names them. SettingsError names a field that is wrong."""
    kind, own = KINDS[name], settings.options
    known = (kind.constant, "preset", "tune", "params")
    if unknown := sorted(set(own) - set(known)):
        raise SettingsError(f"options.{unknown[0]}: {name} has {', '.join(known)}")
    if not 0 <= settings.quality <= MAX_QUALITY:
        raise SettingsError(f"quality: expected 0 to {MAX_QUALITY}, got {settings.quality}")
    if not MIN_EFFORT <= settings.effort <= MAX_EFFORT:
        raise SettingsError(f"effort: expected {MIN_EFFORT} to {MAX_EFFORT}, got {settings.effort}")
    if settings.structure not in STRUCTURES:
        raise SettingsError(f"structure: expected one of {', '.join(STRUCTURES)}, got {settings.structure!r}")
    if settings.intra_period < 1:
        raise SettingsError(f"intra_period: expected at least 1, got {settings.intra_period}")
    if settings.bitrate_mbps is not None and settings.bitrate_mbps <= 0:
        raise SettingsError(f"bitrate_mbps: expected a rate above 0, got {settings.bitrate_mbps}")
    if "params" in own and not kind.params_option:
        raise SettingsError(f"options.params: {name} has none")
    if settings.preset is not None and settings.preset not in kind.every_preset:
        raise SettingsError(f"preset: {name} has {', '.join(kind.every_preset)}; got {settings.preset!r}")

    preset = settings.preset or str(own.get("preset", kind.presets[settings.effort - MIN_EFFORT]))
    period = 1 if settings.structure == "intra" else settings.intra_period
    special, params = kind.own(settings, period, str(own.get("tune", "psnr")))
    options = {kind.preset_option: preset, **special}
    if settings.bitrate_mbps is None:
        options[kind.constant] = f"{_constant(name, settings):g}"
    else:
        options["b"] = str(round(settings.bitrate_mbps * 1e6))
    if own.get("params"):
        params.append(str(own["params"]))
    if params:
        options[kind.params_option] = ":".join(params)
    return options


def _constant(name: str, settings: Settings) -> float:
    """The CRF or QP."""
    kind = KINDS[name]
    value = settings.options.get(kind.constant, kind.constant_at(settings.quality))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= kind.worst:
        raise SettingsError(f"options.{kind.constant}: expected a number from 0 to {kind.worst}, got {value!r}")
    return float(round(value)) if kind.whole else float(value)
