"""The learned codec: everything that nvc/decoder.py imports is normative.

    import nvc
    data = nvc.encode(pictures, fps=25, quality=32)     # (y, u, v) or (H, W, 3), uint8; see nvc/api.py
    for picture in nvc.decode(data):                    # y, u, v

Importing it says where numba keeps the compiled integer loops: in a folder named after the sources of all of them.
Numba itself looks only at the file that defines a function, not at those whose functions it calls, so that a kernel
would go on with what it was compiled with after an update, and code other streams without a word.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvc.api import BitstreamError, CodecError, SettingsError, decode, decode_rgb, encode, info

__all__ = ["BitstreamError", "CodecError", "SettingsError", "decode", "decode_rgb", "encode", "info"]


def kernel_cache(base: str, folder: Path) -> str:
    """The folder for compiled kernels below `base` (or `folder`/__pycache__): named by the SHA-256 of all sources in
    `folder`.  A base that is such a folder already, as a parent process passes it on, is replaced."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    where = Path(base) if base else folder / "__pycache__"
    if where.name.startswith("kernels-"):
        where = where.parent
    return str(where / f"kernels-{digest.hexdigest()[:16]}")


_FOLDER = Path(__file__).resolve().parent
_OF_THE_USER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nvc"
_BASE = os.environ.get("NUMBA_CACHE_DIR") or ("" if os.access(_FOLDER, os.W_OK) else str(_OF_THE_USER))
os.environ["NUMBA_CACHE_DIR"] = kernel_cache(_BASE, _FOLDER)
if "numba" in sys.modules:  # imported before: it has read the variable already
    sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


def __getattr__(name: str) -> Any:
    """`nvc.encode` and so on, of nvc/api.py: loaded when they are asked for, since torch and numba come with them."""
    if name not in __all__:
        raise AttributeError(f"module 'nvc' has no attribute {name!r}")
    from nvc import api

    return getattr(api, name)
