"""Sets of clips under common test conditions: files of `sets/`, or a user's own of the same layout, TOML.

    about = "…"                     one sentence for people
    source = "…"                    where the files come from
    clips = [
        { class = "B", name = "Cactus", file = "Cactus_1920x1080_50.yuv", size = "1920x1080", fps = "50" },
    ]
    [settings]                      fields of an experiment
    quality = [8, 16, 24, 32, 40]

`name` is what the service knows the clip by; `file`, without which the clip needs no upload, what it is called where it
is downloaded; `size`, `fps` and `frames` are what the file should hold, and may be left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "sets"
SUFFIX = ".toml"


class SetError(ValueError):
    """No such set, or one that cannot be read; the text names the file and the entry."""


@dataclass(frozen=True)
class SetClip:
    """One clip of a set; "" and None where the set does not say."""

    group: str
    name: str
    file: str = ""
    size: str = ""
    fps: str = ""
    frames: int | None = None

    @property
    def raw_format(self) -> dict[str, str]:
        """What an upload has to say of a file without a header; {} of others, which say it themselves."""
        if not self.file.endswith(".yuv") or not self.size:
            return {}
        width, _, height = self.size.partition("x")
        return {"width": width, "height": height, **({"fps": self.fps} if self.fps else {})}

    def differences(self, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        """What makes a clip's document (of `PUT /clips/…`) another clip, "" for none; and what to warn of."""
        size = f"{found['width']}x{found['height']}"
        wrong = f"its size is {size}, the set's clip has {self.size}" if self.size not in ("", size) else ""
        remarks = []
        if self.fps and Fraction(self.fps) != Fraction(found["fps"]):
            remarks.append(f"{found['fps']} pictures a second, the set says {self.fps}")
        if self.frames is not None and self.frames != found["frames"]:
            remarks.append(f"{found['frames']} pictures, the set says {self.frames}")
        return wrong, remarks


@dataclass(frozen=True)
class ClipSet:
    """A set as its file has it."""

    name: str
    about: str
    source: str
    settings: dict[str, Any]
    clips: tuple[SetClip, ...]

    @property
    def groups(self) -> dict[str, str]:
        """The class of each clip, by its name."""
        return {clip.name: clip.group for clip in self.clips}


def known() -> list[str]:
    """The names of the sets that the program carries."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def read_set(name: str) -> ClipSet:
    """The set of that name, or in that file (a path that ends in .toml). Raises SetError."""
    path = Path(name) if name.endswith(SUFFIX) else FOLDER / f"{name}{SUFFIX}"
    if not name.endswith(SUFFIX) and name not in known():
        raise SetError(f"set: no set {name!r}; there are {', '.join(known())}, and files that end in {SUFFIX}")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        clips = tuple(_clip(each) for each in document["clips"])
        found = ClipSet(path.stem, str(document["about"]), str(document["source"]), dict(document["settings"]), clips)
    except KeyError as error:
        raise SetError(f"{path}: {error.args[0]}: is missing") from error
    except (OSError, ValueError, TypeError) as error:
        raise SetError(f"{path}: {error}") from error
    if len(found.groups) < len(clips):
        raise SetError(f"{path}: two clips have one name")
    return found


def _clip(given: Mapping[str, Any]) -> SetClip:
    renamed = {"group" if name == "class" else name: value for name, value in given.items()}
    kinds = {field.name: field.type for field in fields(SetClip)}
    for name, value in renamed.items():
        if name not in kinds:
            raise ValueError(f"{name}: no such field of a clip")
        if not isinstance(value, int if name == "frames" else str) or isinstance(value, bool):
            raise ValueError(f"{name}: expected {'a number' if name == 'frames' else 'text'}, got {value!r}")
    if not renamed.get("group") or not renamed.get("name"):
        raise ValueError("clips: expected class and name of each")
    if renamed.get("fps"):
        Fraction(renamed["fps"])
    return SetClip(**renamed)
