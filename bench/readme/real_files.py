"""What comes of files of many kinds: made with FFmpeg, each with what is known of it, and what is read from it.

    python -m bench.readme.real_files [docs/real-files.md] [--more FOLDER]

A file is right where the size, rate, number and depth of its pictures, and what else is asked of it, are read as they
are, and all its pictures can be had; or where it is none that can be coded and is refused. `--more`: files that were
made elsewhere and are in MORE, where they lie there. Prints the rows as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from video.files import open_clip, read_info
from video.picture import MOST_BITS, ClipInfo, VideoError

USUAL = {"width": 96, "height": 64, "fps": Fraction(25), "frames": 12, "bits": 8}


@dataclass(frozen=True)
class File:
    """A file by its name and FFmpeg's arguments, and what is to be read of it beside USUAL; refused: it is no clip."""

    name: str
    arguments: str
    kind: str
    expected: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False
    size: str = "96x64"
    rate: str = "25"


def _clip(name: str, arguments: str, kind: str, size: str = "96x64", rate: str = "25", **expected: Any) -> File:
    width, height = map(int, size.split("x"))
    known = {"width": width, "height": height, "fps": Fraction(rate)} | expected
    return File(name, arguments, kind, known, False, size, rate)


FILES = (
    _clip("h264.mp4", "-c:v libx264", "H.264 with B pictures in MP4"),
    _clip("fragments.mp4", "-c:v libx264 -movflags frag_keyframe+empty_moov", "fragmented MP4"),
    _clip("h264.ts", "-c:v libx264", "H.264 in a transport stream"),
    _clip("h264.flv", "-c:v libx264", "H.264 in FLV"),
    _clip("raw.h264", "-c:v libx264 -f h264", "H.264 without a container"),
    _clip("hi422.mkv", "-c:v libx264 -pix_fmt yuv422p10le", "H.264 High 4:2:2, 10 bits", bits=10),
    _clip("hevc.mp4", "-c:v libx265 -tag:v hvc1", "H.265 in MP4"),
    _clip("main10.mkv", "-c:v libx265 -pix_fmt yuv420p10le", "H.265 Main 10", bits=10),
    _clip("main12.mkv", "-c:v libx265 -pix_fmt yuv420p12le", "H.265 Main 12", bits=12),
    _clip("raw.hevc", "-c:v libx265 -f hevc", "H.265 without a container"),
    _clip("av1.mp4", "-c:v libsvtav1 -pix_fmt yuv420p10le", "AV1, 10 bits, in MP4", bits=10),
    _clip("av1.ivf", "-c:v libaom-av1 -cpu-used 8", "AV1 in IVF"),
    _clip("vp8.webm", "-c:v libvpx", "VP8 in WebM"),
    _clip("vp9.webm", "-c:v libvpx-vp9 -cpu-used 8", "VP9 in WebM"),
    _clip("vp9.ivf", "-c:v libvpx-vp9 -cpu-used 8 -pix_fmt yuv420p10le", "VP9 profile 2 in IVF", bits=10),
    _clip("vvc.mp4", "-c:v libvvenc -preset faster -pix_fmt yuv420p10le", "H.266 in MP4", bits=10),
    _clip("mpeg1.mpg", "-c:v mpeg1video", "MPEG-1 program stream"),
    _clip("mpeg2.mpg", "-c:v mpeg2video -f vob", "MPEG-2 program stream"),
    _clip("mpeg2.ts", "-c:v mpeg2video", "MPEG-2 transport stream"),
    _clip("mpeg2.mxf", "-c:v mpeg2video -f mxf", "MPEG-2 in MXF"),
    _clip("mpeg4.avi", "-c:v mpeg4", "MPEG-4 part 2 in AVI"),
    _clip("msmpeg4.avi", "-c:v msmpeg4", "MS-MPEG-4 in AVI"),
    _clip("wmv2.wmv", "-c:v wmv2", "WMV 8 in ASF"),
    _clip("h263.3gp", "-c:v h263", "H.263 in 3GP", size="176x144"),
    _clip("sorenson.flv", "-c:v flv", "Sorenson H.263 in FLV"),
    _clip("theora.ogv", "-c:v libtheora", "Theora in Ogg"),
    _clip("mjpeg.avi", "-c:v mjpeg -pix_fmt yuvj420p", "Motion JPEG, full range", range="full"),
    _clip("prores.mov", "-c:v prores_ks -profile:v 2", "ProRes 422, 10 bits", bits=10),
    _clip("prores4444.mov", "-c:v prores_ks -profile:v 4 -pix_fmt yuv444p10le", "ProRes 4444, which has 12 bits",
          bits=12),
    _clip("dnxhr.mov", "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p", "DNxHR LB", size="256x128"),
    _clip("ffv1.mkv", "-c:v ffv1", "FFV1"),
    _clip("ffv1rgb.mkv", "-c:v ffv1 -pix_fmt gbrp", "FFV1, RGB"),
    _clip("huffyuv.avi", "-c:v huffyuv -pix_fmt yuv422p", "HuffYUV, 4:2:2"),
    _clip("utvideo.avi", "-c:v utvideo", "Ut Video"),
    _clip("qtrle.mov", "-c:v qtrle -pix_fmt rgb24", "QuickTime Animation, RGB"),
    _clip("jpeg2000.mov", "-c:v jpeg2000", "JPEG 2000 in QuickTime"),
    _clip("dv.dv", "-c:v dvvideo -f dv", "DV, PAL", size="720x576"),
    _clip("raw.nut", "-c:v rawvideo", "raw video in NUT"),
    _clip("v210.mov", "-c:v v210 -pix_fmt yuv422p10le", "v210, 10 bits 4:2:2", bits=10),
    _clip("plain.y4m", "-f yuv4mpegpipe", "YUV4MPEG2"),
    _clip("deep.y4m", "-f yuv4mpegpipe -strict -1 -pix_fmt yuv444p12le", "YUV4MPEG2, 12 bits 4:4:4", bits=12),
    _clip("movie.gif", "", "GIF"),
    _clip("movie.apng", "-c:v apng", "animated PNG"),
    _clip("movie.webp", "-c:v libwebp_anim", "animated WebP"),
    _clip("sequence.avif", "-c:v libaom-av1 -cpu-used 8", "AVIF sequence"),
    _clip("odd.mp4", "-vf scale=97:63 -c:v libx264 -pix_fmt yuv444p", "odd size, 4:4:4", size="97x63"),
    _clip("ntsc.mp4", "-c:v libx264", "30000/1001 pictures a second", rate="30000/1001"),
    _clip("film.mkv", "-c:v libx264", "24000/1001, in times of a millisecond", rate="24000/1001"),
    _clip("fast.mkv", "-c:v libx264", "60000/1001, in times of a millisecond", rate="60000/1001"),
    _clip("slow.mp4", "-c:v libx264", "three pictures in two seconds", rate="3/2"),
    _clip("anamorphic.mp4", "-c:v libx264 -vf setsar=16/11", "sample aspect 16:11", sample_aspect=Fraction(16, 11)),
    _clip("hdr10.mkv", "-c:v libx265 -pix_fmt yuv420p10le -x265-params "
          "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc", "BT.2020, PQ, 10 bits", bits=10,
          primaries="bt2020", transfer="smpte2084", matrix="bt2020"),
    _clip("full.mkv", "-c:v libx264 -vf scale=out_range=full -color_range pc", "full range", range="full"),
    _clip("fields.ts", "-c:v mpeg2video -flags +ildct+ilme -vf setfield=tff", "interlaced, top field first",
          field_order="tff"),
    _clip("audio.mkv", "-f lavfi -i sine=d=0.5 -map 0:v -map 1:a -c:v libx264 -c:a aac", "with sound"),
    _clip("still.png", "-frames:v 1", "PNG", frames=1),
    _clip("still.jpg", "-frames:v 1 -pix_fmt yuvj420p", "JPEG", frames=1, range="full"),
    _clip("still.webp", "-frames:v 1 -c:v libwebp", "WebP", frames=1),
    File("still.tiff", "-frames:v 1 -pix_fmt rgb24", "TIFF, which is not read", refused=True),
    File("still.bmp", "-frames:v 1", "BMP, which is not read", refused=True),
    File("sound.m4a", "-f lavfi -i sine=d=0.5 -map 1:a -c:a aac", "sound alone", refused=True),
    File("cut.mp4", "-c:v libx264 -movflags +faststart", "MP4 cut off in the middle", refused=True),
    File("empty.mp4", "", "nothing in it", refused=True),
    File("page.html", "", "a text", refused=True),
)
# Of shared test files: what is known of them.
MORE: Mapping[str, Mapping[str, Any]] = {
    "sar.mp4": {"sample_aspect": Fraction(16, 11)}, "rot.mp4": {"rotation": 90},
    "gap.mp4": {"fps": Fraction(20)}, "hdr.mkv": {"bits": 10, "transfer": "smpte2084"},
    "inter.mpg": {"field_order": "tff"}, "anim.apng": {"frames": 20}, "anim.webp": {"frames": 20},
    "rate_bipbop0_15fps_said_1000.flv": {"fps": Fraction(15000, 1001)},
    "rate_sample_30fps_said_1000.mkv": {"fps": Fraction(30)}, "pal_1picture.dv": {"fps": Fraction(25)},
    "libavif__colors-animated-8bpc.avif": {"frames": 5, "fps": Fraction(30)},
    "grid_1024x770_said_1024x154.avif": {"refused": True}, "twovideo.mkv": {"width": 192, "height": 128},
    "editlist_75_said_100.mp4": {"frames": 75}, "trunc_faststart.mp4": {"refused": True},
    "onebit_black_white.png": {"frames": 1}, "palette_black_white.png": {"frames": 1},
}


def make(file: File, folder: Path) -> Path:
    """The file, in a folder."""
    path = folder / file.name
    if file.name == "empty.mp4":
        path.write_bytes(b"")
    elif file.name == "page.html":
        path.write_text("<!doctype html><title>No film here</title>" * 50)
    else:
        source = f"testsrc2=size={file.size}:rate={file.rate},format=yuv420p"
        count = [] if "-frames" in file.arguments else ["-frames:v", "12"]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi",
                        "-i", source, *file.arguments.split(), *count, str(path)],
                       check=True, capture_output=True, timeout=120)
    if file.name == "cut.mp4":
        path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    return path


def look(path: Path, kind: str, expected: Mapping[str, Any], refused: bool) -> dict[str, Any]:
    """What is read of a file, what is said of it, and what of that is not as it should be."""
    row: dict[str, Any] = {"file": path.name, "kind": kind}
    try:
        info = read_info(path, most_bits=MOST_BITS)
        with open_clip(path, most_bits=MOST_BITS) as clip:
            count = sum(1 for _ in clip)
    except VideoError as error:
        wrong = [] if refused else ["refused"]
        return row | {"read": "refused", "said": str(error).replace(str(path.parent) + "/", ""), "wrong": wrong}
    found = {name: getattr(info, name) for name in expected}
    wrong = [f"{name}: {value}, expected {expected[name]}" for name, value in found.items()
             if value != expected[name]]
    wrong += ["cut off, and was taken"] * refused + [f"{count} pictures can be had"] * (count != info.frames)
    said = "; ".join(filter(None, (info.converted, *info.warnings)))
    return row | {"read": words_of(info), "said": said, "wrong": wrong}


def words_of(info: ClipInfo) -> str:
    """Size, rate, number and depth, and what is unusual."""
    unusual = [f"{info.sample_aspect.numerator}:{info.sample_aspect.denominator}"] * (info.sample_aspect != 1)
    unusual += [f"{info.rotation}°"] * (info.rotation != 0)
    unusual += [info.field_order] * (info.field_order != "progressive")
    unusual += ["full range"] * (info.range == "full") + [info.transfer] * (info.transfer == "smpte2084")
    count = f"{info.frames} picture{'' if info.frames == 1 else 's'}"
    return ", ".join([f"{info.width}×{info.height}", f"{info.fps} fps", count, f"{info.bits} bits", *unusual])


def page(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    right = sum(not row["wrong"] for row in rows)
    lines = ["# Files of many kinds", "", f"{right} of {len(rows)} are read as they are, or refused for what they are. "
             "Made by `python -m bench.readme.real_files`, where FFmpeg's arguments for each stand.", "",
             "| file | what it is | read as | said | right |", "|---|---|---|---|---|"]
    lines += [f"| {row['file']} | {row['kind']} | {row['read']} | {row['said'].replace('|', '/')} | "
              f"{'; '.join(row['wrong']) or 'yes'} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/real-files.md"))
    parser.add_argument("--more", type=Path, metavar="FOLDER")
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for file in FILES:
            rows.append(look(make(file, Path(name)), file.kind, {**USUAL, **file.expected}, file.refused))
    for name, expected in MORE.items() if o.more else ():
        if (o.more / name).exists():
            others = {key: value for key, value in expected.items() if key != "refused"}
            rows.append(look(o.more / name, "of public trackers and test sets", others, "refused" in expected))
    o.out.write_text(page(rows), encoding="utf-8")
    print(json.dumps({"command": "python -m bench.readme.real_files", "files": rows}, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
