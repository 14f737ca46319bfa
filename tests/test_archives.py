"""Pictures packed into a ZIP or TAR as a clip; what is hostile in one is refused by its name."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from video import archives, stills
from video.files import open_clip, read_info
from video.picture import DamagedVideo, EmptyVideo, NotAVideo, TooLarge, VideoError


def png(level: int, size: tuple[int, int] = (16, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(out, "png")
    return out.getvalue()


def zipped(path: Path, entries: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:  # type: ignore[arg-type]
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, entries: dict[str, bytes], **more: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            for field, value in more.items():
                setattr(about, field, value)
            archive.addfile(about, io.BytesIO(data))
    return path


PACKERS = {"zip": zipped, "tar": tarred}


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_of_pictures_is_a_clip_in_the_order_of_their_numbers(tmp_path: Path, kind: str) -> None:
    entries = {f"clip/frame{number}.png": png(10 * number) for number in (10, 2, 1)}
    path = PACKERS[kind](tmp_path / "clip", {**entries, "clip/notes.txt": b"hello", "clip/.hidden.png": b"x"})
    with open_clip(path) as clip:
        assert (clip.info.width, clip.info.height, clip.info.fps, clip.info.frames) == (16, 8, 25, 3)
        assert clip.info.converted == "rgb24 to yuv420p"
        assert [int(picture.y[0, 0]) for picture in clip] == [round(16 + 219 * 10 * n / 255) for n in (1, 2, 10)]


@pytest.mark.parametrize("kind", PACKERS)
def test_an_entry_says_the_rate(tmp_path: Path, kind: str) -> None:
    path = PACKERS[kind](tmp_path / "a", {"1.png": png(1), "clip.json": b'{"fps": "30000/1001"}'})
    assert read_info(path).fps == Fraction(30000, 1001)


@pytest.mark.parametrize(("said", "words"), [
    (b'{"fps": "1e999999999"}', "fps: expected a number or a fraction such as 30000/1001, got '1e999999999'"),
    (b'{"fps": 25, "size": 3}', 'expected {"fps": "30000/1001"}'),
    (b"25", 'expected {"fps": "30000/1001"}'),
    (b'{"fps": 0}', "fps: expected a rate above 0"),
])
def test_a_wrong_rate_is_refused(tmp_path: Path, said: bytes, words: str) -> None:
    with pytest.raises(VideoError, match=words):
        open_clip(zipped(tmp_path / "a.zip", {"1.png": png(1), "clip.json": said}))


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["../up.png", "/etc/up.png", "a/../../up.png", "C:\\up.png", "a\\..\\up.png"])
def test_an_entry_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = PACKERS[kind](tmp_path / "a", {"1.png": png(1), name: png(2)})
    with pytest.raises(NotAVideo, match=r"up\.png' leads out of the archive"):
        open_clip(path)


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, type_: bytes) -> None:
    with pytest.raises(NotAVideo, match=r"entry '1\.png' is a link or device"):
        open_clip(tarred(tmp_path / "a.tar", {"1.png": b""}, type=type_, linkname="/etc/passwd"))  # type: ignore[arg-type]


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("1.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(NotAVideo, match=r"entry '1\.png' is a link or device"):
        open_clip(tmp_path / "a.zip")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1.png": png(1)})
    data = bytearray(path.read_bytes())
    data[6] |= 1                            # of the entry
    data[data.index(b"PK\x01\x02") + 8] |= 1    # of the list
    path.write_bytes(data)
    with pytest.raises(NotAVideo, match=r"entry '1\.png' is encrypted"):
        open_clip(path)


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for level in (1, 2):
            about = tarfile.TarInfo("1.png")
            about.size = len(png(level))
            archive.addfile(about, io.BytesIO(png(level)))
    with pytest.raises(NotAVideo, match=r"entry '1\.png' is there twice"):
        open_clip(tmp_path / "a.tar")


def test_a_bomb_of_size_is_refused_by_what_its_list_says(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1.png": bytes(20 << 20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge, match=r"entry '1\.png' grows to 20971520 bytes; .* 100 times the archive's size"):
        open_clip(path)


def test_a_bomb_that_lies_about_its_size_is_read_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    path = zipped(tmp_path / "a.zip", {"1.png": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 500))
    path.write_bytes(data)
    with pytest.raises((DamagedVideo, TooLarge), match=r"1\.png"):
        open_clip(path)


def test_a_picture_file_larger_than_any_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "MAX_FILE_BYTES", 50)
    (tmp_path / "1.png").write_bytes(png(1))
    with pytest.raises(TooLarge, match=r"1\.png: picture 0 is a file of more than 50 bytes"):
        open_clip(tmp_path / "1.png")


def test_a_bomb_of_count_is_refused_before_its_list_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1.png": png(1)})
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<H", data, end + 10, 0xFFFF)
    path.write_bytes(data)
    with pytest.raises(TooLarge, match="more than 65534 entries"):
        open_clip(path)


def test_too_many_entries_of_a_tar_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    with pytest.raises(TooLarge, match="more than 3 entries"):
        open_clip(tarred(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(4)}))


def test_an_archive_without_pictures_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyVideo, match="an archive without pictures"):
        open_clip(zipped(tmp_path / "a.zip", {"notes.txt": b"hello"}))
    with pytest.raises(EmptyVideo, match="an archive without pictures"):
        open_clip(zipped(tmp_path / "b.zip", {}))


def test_pictures_of_several_sizes_name_the_entry(tmp_path: Path) -> None:
    with (
        open_clip(zipped(tmp_path / "a.zip", {"1.png": png(1), "2.png": png(2, (18, 8))})) as clip,
        pytest.raises(DamagedVideo, match=r"2\.png: picture 1 is 18x8, the ones before are 16x8"),
    ):
        list(clip)


@pytest.mark.parametrize(("head", "kind"), [(b"\x1f\x8b", "gzip"), (b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"BZh", "bzip2")])
def test_a_compressed_archive_is_refused_with_what_to_do(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(head + bytes(100))
    with pytest.raises(NotAVideo, match=f"compressed by {kind}, which is not read: pack pictures as .zip"):
        open_clip(tmp_path / "a.tar.gz")


def test_a_zip_that_was_cut_short_is_said_so(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1.png": png(1)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(NotAVideo, match="its list of entries is missing; was it cut short"):
        open_clip(path)


@settings(deadline=None)
@given(st.data())
def test_damaged_archives_give_a_video_error_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(_whole(data.draw(st.sampled_from(["zip", "tar"]))))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = Path(_FOLDER.name) / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        with open_clip(path) as clip:
            for _ in clip:
                pass
    except VideoError:
        pass


_FOLDER = __import__("tempfile").TemporaryDirectory()


def _whole(kind: str) -> bytes:
    path = Path(_FOLDER.name) / kind
    if not path.exists():
        PACKERS[kind](path, {"1.png": png(10), "2.png": png(20), "clip.json": b'{"fps": 30}'})
    return path.read_bytes()
