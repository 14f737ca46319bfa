"""The errors of the learned codec, under the roots of coding/interface.py: whoever catches those there catches these.

nvc imports coding/interface.py and video/picture.py, which hold types only, and nothing else from outside its folder.
"""

from __future__ import annotations

from coding import interface
from coding.interface import SettingsError

__all__ = ["BitstreamError", "SettingsError"]


class BitstreamError(interface.BitstreamError):
    """Damaged, truncated, foreign or hostile bytes; ``offset`` is where in the stream (bytes from its start)."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at byte {offset})")
        self.message = message
        self.offset = offset

    def __reduce__(self) -> tuple[type[BitstreamError], tuple[str, int]]:
        """Crosses a process border whole; the default would hand over the joined text only."""
        return type(self), (self.message, self.offset)
