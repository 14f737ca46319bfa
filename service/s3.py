"""Bytes in S3 buckets: clips that experiments name by `s3://bucket/key`, and the store of clips and artifacts.

    bucket = Bucket("s3://my-lab/nvc")          PREFIX/ab/ab12…: whatever has this name has this SHA-256
    bucket.put(path, sha256)                    the service checks the digest on arrival, and keeps it
    fetch("s3://other/film.mkv", out, limit)    any object, into a file

boto3 (requirements-s3.txt) is imported only where a setting names a bucket. Credentials come by its usual chain alone
(environment, shared files, instance role): never by an address or a setting, and never into a message. Every call is
tried three times at most, and waits for a bounded time.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

CONNECT_S, READ_S, TRIES = 5.0, 30.0, 3
PRESIGNED_S = 3600          # that an address which was handed out is good for
MOST_BYTES = 5 << 30        # of one object, by one PUT
PIECE = 1 << 20
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"    # the rules for general-purpose buckets, but for those on dots
ADDRESS = re.compile(rf"s3://({BUCKET})/([!-~]{{1,900}})")
PLACE = re.compile(rf"s3://({BUCKET})(?:/([A-Za-z0-9._/-]{{0,200}}))?")
SHA256 = re.compile(r"[0-9a-f]{64}")


class S3Error(Exception):
    """Root of what this module raises: a bucket or an object cannot be used. The text says which and why, and never
    has a credential in it."""


class BadAddress(S3Error):
    """No such form of address is known."""


class NoObject(S3Error):
    """The bucket has no such object."""


_lock = threading.Lock()
_client: Any = None


def client() -> Any:
    """boto3's client, made once; it is safe for threads. Raises S3Error where boto3 is not installed."""
    global _client
    with _lock:
        if _client is None:
            try:
                import boto3
                from botocore.config import Config
            except ImportError as error:
                raise S3Error("boto3 is not installed: pip install -r requirements-s3.txt") from error
            limits = Config(connect_timeout=CONNECT_S, read_timeout=READ_S,
                            retries={"total_max_attempts": TRIES, "mode": "standard"})
            _client = boto3.session.Session().client("s3", config=limits)
        return _client


def call(operation: str, what: str, **parameters: Any) -> Any:
    """One call; `what` is what its error is about. Raises NoObject, S3Error."""
    import botocore.exceptions as wrong

    try:
        return getattr(client(), operation)(**parameters)
    except wrong.ClientError as error:
        said = error.response.get("Error", {})
        code = str(said.get("Code", "unknown"))
        if code in ("404", "NoSuchKey", "NotFound"):
            raise NoObject(f"{what}: there is no such object") from error
        denied = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
        words = {**dict.fromkeys(denied, "access is denied"), "NoSuchBucket": "there is no such bucket",
                 "BadDigest": "the bytes that arrived have another SHA-256"}.get(code, code)
        raise S3Error(f"{what}: {words}") from error
    except wrong.NoCredentialsError as error:
        raise S3Error(f"{what}: no credentials were found (environment, ~/.aws, instance role)") from error
    except (wrong.BotoCoreError, OSError) as error:
        raise S3Error(f"{what}: no answer after {TRIES} tries: {type(error).__name__}") from error


def fetch(address: str, out: BinaryIO, limit_bytes: int) -> tuple[int, str]:
    """Write the object into `out`: its size and SHA-256. Raises BadAddress, NoObject, S3Error."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise BadAddress(f"{address[:200]}: expected s3://bucket/key")
    return _read(found[1], found[2], address, out, limit_bytes)


def _read(bucket: str, key: str, what: str, out: BinaryIO, limit_bytes: int) -> tuple[int, str]:
    client()
    answer = call("get_object", what, Bucket=bucket, Key=key)
    if answer["ContentLength"] > limit_bytes:
        raise S3Error(f"{what}: it has {answer['ContentLength']} bytes, more than the {limit_bytes} that are allowed")
    digest, size = hashlib.sha256(), 0
    try:
        for piece in answer["Body"].iter_chunks(PIECE):
            out.write(piece)
            digest.update(piece)
            size += len(piece)
    except Exception as error:      # botocore's and urllib3's, which have no common root
        if isinstance(error, OSError) and error.errno is not None:
            raise                   # of `out`
        raise S3Error(f"{what}: it broke off after {size} bytes: {type(error).__name__}") from error
    if size != answer["ContentLength"]:
        raise S3Error(f"{what}: it broke off after {size} of {answer['ContentLength']} bytes")
    return size, digest.hexdigest()


class Bucket:
    """A prefix of a bucket, as a store of bytes under their SHA-256. Safe for threads."""

    def __init__(self, address: str) -> None:
        """Makes no call. Raises BadAddress, S3Error."""
        found = PLACE.fullmatch(address)
        if found is None:
            raise BadAddress(f"{address[:200]}: expected s3://bucket or s3://bucket/prefix")
        self.address = address.rstrip("/")
        self._bucket, self._prefix = found[1], f"{(found[2] or '').strip('/')}/".lstrip("/")
        client()

    def check(self) -> None:
        """Raises S3Error unless the bucket answers and lists."""
        call("list_objects_v2", self.address, Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def size(self, sha256: str) -> int | None:
        """Bytes of the object of this digest, as the service has checked it; None where there is none. Raises
        S3Error."""
        try:
            answer = call("head_object", self._of(sha256), Bucket=self._bucket, Key=self._key(sha256),
                          ChecksumMode="ENABLED")
        except NoObject:
            return None
        return int(answer["ContentLength"]) if answer.get("ChecksumSHA256") == _base64(sha256) else None

    def put(self, path: Path, sha256: str) -> None:
        """Store a file, unless its bytes are there. Raises S3Error, OSError."""
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise S3Error(f"{self._of(sha256)}: {size} bytes are more than one object of {MOST_BYTES} takes")
        if self.size(sha256) == size:
            return
        with open(path, "rb") as file:
            call("put_object", self._of(sha256), Bucket=self._bucket, Key=self._key(sha256), Body=file,
                 ContentLength=size, ChecksumAlgorithm="SHA256", ChecksumSHA256=_base64(sha256))

    def read(self, sha256: str, out: BinaryIO) -> tuple[int, str]:
        """Write the object of this digest into `out`: its size and the digest of what came. Raises NoObject,
        S3Error."""
        return _read(self._bucket, self._key(sha256), self._of(sha256), out, MOST_BYTES)

    def presigned(self, sha256: str, name: str, content_type: str) -> str:
        """An address at which anyone may read the object for PRESIGNED_S."""
        parameters = {"Bucket": self._bucket, "Key": self._key(sha256), "ResponseContentType": content_type,
                      "ResponseContentDisposition": f'attachment; filename="{name}"'}
        address: str = client().generate_presigned_url("get_object", Params=parameters, ExpiresIn=PRESIGNED_S)
        return address

    def older_than(self, age_s: float) -> Iterator[str]:
        """Digests of objects that were stored longer ago (wall clock). Raises S3Error."""
        more: dict[str, str] = {}
        while True:
            answer = call("list_objects_v2", self.address, Bucket=self._bucket, Prefix=self._prefix, **more)
            for each in answer.get("Contents", ()):
                name = each["Key"].rpartition("/")[2]
                if SHA256.fullmatch(name) and each["LastModified"].timestamp() < time.time() - age_s:
                    yield name
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def remove(self, sha256: str) -> None:
        """Raises S3Error."""
        call("delete_object", self._of(sha256), Bucket=self._bucket, Key=self._key(sha256))

    def _key(self, sha256: str) -> str:
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256 in hexadecimal digits")
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    def _of(self, sha256: str) -> str:
        return f"{self.address}/{sha256[:2]}/{sha256}"


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
