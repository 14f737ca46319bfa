"""The FFmpeg program that the package imageio-ffmpeg carries: filters and encoders that PyAV's build of FFmpeg lacks.

Optional.  `IMAGEIO_FFMPEG_EXE` in the environment names another program to use.
"""

from __future__ import annotations

import functools
import subprocess

VERSION_S = 30.0  # to answer -version; a cold disk reads 200 MB first


class ProgramError(Exception):
    """The program could not do what it was asked for."""


class ProgramMissing(ProgramError):
    """There is no such program here."""

    def __init__(self, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the FFmpeg program of the package imageio-ffmpeg: "
                         "pip install -r requirements-measures.txt")


@functools.cache
def executable(needed_for: str) -> str:
    """Path of the program.  Raises ProgramMissing, which says that ``needed_for`` needs it and what to install."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise ProgramMissing(needed_for) from error


@functools.cache
def version() -> str:
    """The program's version as it names itself, such as "n9.0.2".  Raises ProgramError."""
    words = subprocess.run([executable("its version"), "-version"], capture_output=True, text=True, errors="replace",
                           timeout=VERSION_S, check=False).stdout.split()
    if words[:2] != ["ffmpeg", "version"] or len(words) < 3:
        raise ProgramError(f"{executable('its version')} -version does not answer as FFmpeg does")
    return words[2]
