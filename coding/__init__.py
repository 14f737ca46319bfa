"""What a codec is given and gives: all that a codec of your own needs to import.  registry.py has codecs by name."""

from coding.interface import (
    STRUCTURES,
    BitstreamError,
    Cancelled,
    Codec,
    CodecError,
    Decoded,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Settings,
    SettingsError,
    no_report,
)
from video.picture import ClipInfo, Picture

__all__ = ["STRUCTURES", "BitstreamError", "Cancelled", "ClipInfo", "Codec", "CodecError", "Decoded", "Encoded",
           "FrameReport", "Picture", "Progress", "Report", "Settings", "SettingsError", "no_report"]
