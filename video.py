"""Clips in and out."""

from __future__ import annotations

from picture import (
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    NoVideoStream,
    Picture,
    TooLarge,
    VideoError,
)

__all__ = [
    "ClipInfo",
    "DamagedVideo",
    "EmptyVideo",
    "Limits",
    "NoVideoStream",
    "NotAVideo",
    "Picture",
    "TooLarge",
    "VideoError",
]
