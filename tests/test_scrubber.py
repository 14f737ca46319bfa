"""Stored files are read again, slowly, and those that a disk has damaged are found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.storage.blobs import Blobs
from service.storage.scrubber import PIECE, Scrubber


def store(blobs: Blobs, data: bytes) -> str:
    with blobs.receiving("x") as part:
        part.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        blobs.keep(part, sha256)
    return sha256


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def over_all(scrubber: Scrubber) -> list[str]:
    """What one round finds."""
    began, found = scrubber.rounds, []
    while scrubber.rounds < began + 2:      # the first one may be under way
        found += scrubber.step()
    return found


def test_a_changed_byte_is_found_once_and_known_until_it_is_mended(blobs: Blobs) -> None:
    whole, hit = (store(blobs, letter * (3 * PIECE)) for letter in (b"a", b"b"))
    scrubber = Scrubber(blobs, 10 * PIECE)
    assert over_all(scrubber) == []
    with open(blobs.path(hit), "r+b") as file:
        file.seek(2 * PIECE + 5)
        file.write(b"?")
    assert over_all(scrubber) == [hit]
    assert over_all(scrubber) == []
    assert scrubber.damaged == {hit}
    store(blobs, b"b" * (3 * PIECE))
    over_all(scrubber)
    assert scrubber.damaged == set()
    assert blobs.path(whole).exists()


def test_a_file_that_is_cut_off_is_found(blobs: Blobs) -> None:
    hit = store(blobs, b"a" * 100)
    blobs.path(hit).write_bytes(b"a" * 99)
    assert over_all(Scrubber(blobs, PIECE)) == [hit]


def test_no_more_is_read_than_is_allowed(blobs: Blobs) -> None:
    store(blobs, bytes(10 * PIECE))
    scrubber = Scrubber(blobs, PIECE)
    steps = 0
    while scrubber.rounds < 2:
        scrubber.step()
        steps += 1
    assert steps >= 10


def test_nothing_is_read_where_nothing_is_allowed(blobs: Blobs) -> None:
    blobs.path(store(blobs, b"a")).write_bytes(b"b")
    scrubber = Scrubber(blobs, 0.0)
    assert [scrubber.step() for _ in range(10)] == [[]] * 10
    assert scrubber.rounds == 0


def test_a_file_that_was_removed_meanwhile_is_no_matter(blobs: Blobs) -> None:
    names = [store(blobs, bytes([n])) for n in range(3)]
    scrubber = Scrubber(blobs, 1)
    scrubber.step()
    for name in names:
        blobs.path(name).unlink()
    assert over_all(scrubber) == []
