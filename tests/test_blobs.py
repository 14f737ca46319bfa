"""Bytes under their SHA-256: kept whole, healed by what arrives again, removed only when nothing names them."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from service.storage.blobs import Blobs

DATA = b"a stream"
SHA256 = hashlib.sha256(DATA).hexdigest()
DAY_S = 86_400.0


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def put(blobs: Blobs, data: bytes = DATA) -> bool:
    with blobs.receiving("part") as path:
        path.write_bytes(data)
        return blobs.keep(path, hashlib.sha256(data).hexdigest())


def test_bytes_are_new_once(blobs: Blobs) -> None:
    assert [put(blobs), put(blobs)] == [True, False]


def test_what_arrives_replaces_what_was_damaged(blobs: Blobs) -> None:
    put(blobs)
    blobs.path(SHA256).write_bytes(b"a strEam")
    put(blobs)
    assert blobs.path(SHA256).read_bytes() == DATA


def test_what_was_not_kept_is_removed(blobs: Blobs) -> None:
    with blobs.receiving("part") as path:
        path.write_bytes(DATA)
    assert (blobs.size(SHA256), path.exists()) == (None, False)


def test_what_nothing_names_is_removed_when_it_is_old(blobs: Blobs) -> None:
    put(blobs)
    assert blobs.sweep(lambda sha256: False, DAY_S) == 0
    os.utime(blobs.path(SHA256), (0, 0))
    assert blobs.sweep(lambda sha256: True, DAY_S) == 0
    assert blobs.sweep(lambda sha256: False, DAY_S) == 1


def test_bytes_that_arrive_while_they_are_being_removed_stay(blobs: Blobs) -> None:
    put(blobs)
    os.utime(blobs.path(SHA256), (0, 0))
    arriving = threading.Thread(target=put, args=(blobs,))

    def in_use(sha256: str) -> bool:
        arriving.start()  # between the look at the file's age and its removal
        arriving.join(0.1)
        return False

    blobs.sweep(in_use, DAY_S)
    arriving.join()
    assert blobs.path(SHA256).read_bytes() == DATA
