"""Errors of a run, and how the codec process reports them to the worker."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Any

from coding.interface import BitstreamError, CodecError, SettingsError
from video.picture import VideoError


class MeasureError(Exception):
    """A run cannot be measured. ``slug`` names the kind; ``retry`` is True where another worker might fare better."""

    def __init__(self, slug: str, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.slug = slug
        self.retry = retry


def explain(error: BaseException) -> tuple[dict[str, Any], bool]:
    """What went wrong, for the worker: ({type, detail, retry}, whether this process should be replaced).

    ``retry`` says whose fault it was: False for the clip's, the settings' or the codec's own, which would be the same
    on every machine; True for this machine's (memory, disk).
    """
    def own(slug: str) -> tuple[dict[str, Any], bool]:
        return {"type": slug, "detail": str(error) or type(error).__name__, "retry": False}, False

    if isinstance(error, MeasureError):
        return {"type": error.slug, "detail": str(error), "retry": error.retry}, False
    if isinstance(error, VideoError):
        return own("bad-video")
    if isinstance(error, SettingsError):
        return own("bad-settings")
    if isinstance(error, BitstreamError):
        return own("bad-stream")
    if isinstance(error, CodecError):
        return own("codec-refused")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return {"type": "out-of-memory", "detail": f"the codec ran out of memory: {error}", "retry": True}, True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return {"type": "disk-full", "detail": f"the worker's disk is full: {error}", "retry": True}, False
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    return {"type": "codec-error", "detail": f"{type(error).__name__}: {error}{where}", "retry": False}, False
