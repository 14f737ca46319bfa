"""The fields of an experiment, and how a request that has them is read. `service/jobs/states.py` hands all of it on.

One table (`FIELDS`) says what each field may be; reading a request, its JSON Schema and the defaults follow from it.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class JobError(Exception):
    """Root of what this module raises."""


class FieldError(JobError):
    """A request's field is unknown, of the wrong type or out of range; `field` names it ("" for the whole document)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class UnknownField(FieldError):
    """The request has a field that experiments do not have."""


LIBRARY_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
ADDRESS = rf"https://[A-Za-z0-9][A-Za-z0-9.-]{{0,252}}(:({PORT}))?(/[!-~]{{0,1800}})?"   # no user, no password
S3_ADDRESS = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[!-~]{1,900}"
FETCHED = ("https:", "s3:")     # how names begin of clips that the orchestrator fetches
CLIP_PATTERN = rf"^({LIBRARY_NAME}|sha256:[0-9a-f]{{64}}|{ADDRESS}|{S3_ADDRESS})$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_TAGS = 32
MAX_TAG_VALUE = 200
MAX_RUNS = 1000     # of one grid: what a page can still show and a night can still compute
MAX_SEGMENTS = 64   # of one run


@dataclass(frozen=True)
class Field:
    """One field of a request. `kind`: "integer", "number", "string", "boolean", "names" (a list of `choices`), "range"
    (two numbers, the lower one first), "segments" (a number or "auto") or "tags"; `low` and `high` are inclusive, and
    for strings bound the length; `nullable` says that null means "not given"."""

    name: str
    kind: str
    default: Any
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    nullable: bool = False

    def expected(self) -> str:
        """What an error message says was expected."""
        if self.kind == "tags":
            words = f"an object of at most {MAX_TAGS} strings of at most {MAX_TAG_VALUE} characters"
        elif self.kind == "boolean":
            words = "true or false"
        elif self.kind == "names":
            words = "a list of one or more, each once, of " + ", ".join(self.choices)
        elif self.kind == "range":
            words = f"two numbers from {self.low:g} to {self.high:g}, the lower one first"
        elif self.kind == "segments":
            words = f'an integer from {self.low:g} to {self.high:g}, "auto"'
        elif self.choices:
            words = "one of " + ", ".join(self.choices)
        elif self.name == "clip":
            words = "a library name, sha256: and 64 hexadecimal digits, an https:// address, or s3://bucket/key"
        elif self.pattern:
            words = "a name of at most 64 letters, digits, dots, hyphens and underscores"
        elif self.kind == "string":
            words = f"a string of at most {self.high:g} characters"
        else:
            words = f"{'an integer' if self.kind == 'integer' else 'a number'} from {self.low:g} to {self.high:.9g}"
        return words + (" or null" if self.nullable else "")

    def schema(self) -> dict[str, Any]:
        """The field as JSON Schema (draft 2020-12), for the OpenAPI document."""
        made = self._schema_of_one()
        if self.name not in GRID:
            return made
        about = {"default": made.pop("default"), "description": made.pop("description")}
        one = made if not self.nullable else made | {"type": self.kind}
        return {"anyOf": [made, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_RUNS,
                                 "uniqueItems": True}], **about}

    def _schema_of_one(self) -> dict[str, Any]:
        if self.kind == "tags":
            return {"type": "object", "maxProperties": MAX_TAGS, "propertyNames": {"pattern": TAG_PATTERN},
                    "additionalProperties": {"type": "string", "maxLength": MAX_TAG_VALUE},
                    "default": self.default, "description": self.about}
        if self.kind == "names":
            return {"type": "array", "items": {"enum": [*self.choices]}, "minItems": 1, "uniqueItems": True,
                    "default": self.default, "description": self.about}
        if self.kind == "segments":
            return {"anyOf": [{"type": "integer", "minimum": self.low, "maximum": self.high}, {"enum": ["auto", None]}],
                    "default": self.default, "description": self.about}
        if self.kind == "range":
            return {"type": ["array", "null"], "items": {"type": "number", "minimum": self.low, "maximum": self.high},
                    "minItems": 2, "maxItems": 2, "default": self.default, "description": self.about}
        made: dict[str, Any] = {"type": [self.kind, "null"] if self.nullable else self.kind}
        if self.choices:
            made["enum"] = [*self.choices]
        if self.pattern:
            made["pattern"] = self.pattern
        if self.kind == "string" and self.high is not None:
            made["maxLength"] = int(self.high)
        if self.kind in ("integer", "number"):
            made |= {"minimum": self.low, "maximum": self.high}
        return made | {"default": self.default, "description": self.about}


FIELDS: tuple[Field, ...] = (
    Field("clip", "string", "carphone", "what to code: a library name, sha256:…, an https:// or s3:// address",
          pattern=CLIP_PATTERN),
    Field("codec", "string", "nvc", "which codec; workers say which ones they have", pattern=NAME_PATTERN),
    Field("model", "string", "nvc-1", "which weights of the codec", pattern=NAME_PATTERN),
    Field("quality", "integer", 32, "the codec's own scale, higher is better; 32 when no other aim is given",
          0, 63, nullable=True),
    Field("frames", "integer", None, "how many pictures to code; null for all", 1, 1_000_000, nullable=True),
    Field("first_frame", "integer", 0, "the first picture to code", 0, 10_000_000),
    Field("structure", "string", "random_access", "which pictures predict which",
          choices=("intra", "low_delay", "random_access")),
    Field("intra_period", "integer", 64, "pictures from one intra picture to the next", 1, 65535),
    Field("effort", "integer", 0, "how much the encoder may search", -1, 3),
    Field("preset", "string", None, "a peer's own name for its effort, in place of `effort`: medium, 8, …",
          pattern=NAME_PATTERN, nullable=True),
    Field("bitrate_mbps", "number", None, "aim for this rate in place of a quality, Mbit/s", 0.0001, 10_000,
          nullable=True),
    Field("psnr_db", "number", None, "aim for this PSNR in place of a quality, dB", 10, 80, nullable=True),
    Field("measures", "names", ["psnr", "ssim", "ms_ssim"], "what is measured of the decoded pictures; psnr always is",
          choices=("psnr", "ssim", "ms_ssim", "vmaf", "vmaf_neg", "xpsnr")),
    Field("segments", "segments", None, "into how many a long clip is cut, to be coded by several workers at once; "
          "null: one piece", 2, MAX_SEGMENTS, nullable=True),
    Field("device", "string", "auto", "where the codec computes", choices=("auto", "cpu", "cuda")),
    Field("timeout_s", "number", 600, "seconds from start until the run is killed and failed", 1, 86_400),
    Field("keep_reconstruction", "boolean", True, "keep the decoded pictures as an artifact"),
    Field("label", "string", "", "a name for people to read", high=200),
    Field("tags", "tags", {}, "names and values to find the experiment by"),
)
AIMS = ("quality", "bitrate_mbps", "psnr_db")
# May be lists; the last one varies fastest.
GRID = ("clip", "codec", "model", "structure", "effort", "preset", "bitrate_mbps", "psnr_db", "quality")
# Of requests only: they stand for a list of psnr_db.
SHORTHANDS: tuple[Field, ...] = (
    Field("psnr_range", "range", None, "a sweep from one PSNR to another, [from, to] in dB, in place of psnr_db",
          10, 80, nullable=True),
    Field("points", "integer", 5, "of psnr_range: how many, evenly spaced", 2, 50),
)
LATER = ("preset", "measures")      # than the first version
_BY_NAME = {field.name: field for field in (*FIELDS, *SHORTHANDS)}


def read_request(document: object) -> dict[str, Any]:
    """The request with every field checked and filled in, in the order of `FIELDS`. Exactly one of `AIMS` is not null.

    Raises FieldError naming the field and what was expected."""
    if not isinstance(document, Mapping):
        raise FieldError("", f"the request must be a JSON object, got {_kind_of(document)}")
    for name in document:
        if name not in _BY_NAME:
            raise UnknownField(str(name), "no such field; known are " + ", ".join(_BY_NAME))
    document = _without_shorthands(document)
    filled = {field.name: _check_grid(field, document[field.name]) if field.name in document else field.default
              for field in FIELDS}
    given = [name for name in AIMS if document.get(name) is not None]
    if len(given) > 1:
        raise FieldError(given[1], f"give exactly one of {', '.join(AIMS)}; {given[0]} is given too")
    if not given:
        filled["quality"] = _BY_NAME["quality"].default
    elif given != ["quality"]:
        filled["quality"] = None
    filled["tags"], filled["measures"] = dict(filled["tags"]), list(filled["measures"])
    if (total := count_runs(filled)) > MAX_RUNS:
        largest = max((name for name in GRID if isinstance(filled[name], list)), key=lambda name: len(filled[name]))
        raise FieldError(largest, f"the lists make {total} runs; at most {MAX_RUNS} were expected")
    return filled


def _without_shorthands(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request with psnr_range and points written out as a list of psnr_db. Raises FieldError."""
    given = {field.name: _check(field, document[field.name]) for field in SHORTHANDS if field.name in document}
    others = {name: value for name, value in document.items() if name not in given}
    if given.get("psnr_range") is None:
        if "points" in given:
            raise FieldError("points", "is for psnr_range, which is not given")
        return others
    if aim := next((name for name in AIMS if others.get(name) is not None), None):
        raise FieldError("psnr_range", f"give exactly one of {', '.join(AIMS)}, psnr_range; {aim} is given too")
    (low, high), points = given["psnr_range"], given.get("points", _BY_NAME["points"].default)
    return others | {"psnr_db": [round(low + n * (high - low) / (points - 1), 4) for n in range(points)]}


def changed(original: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A filled-in experiment as a new request with some fields otherwise; an aim that is given takes the place of the
    original's."""
    aim = next((name for name in (*AIMS, "psnr_range") if changes.get(name) is not None), None)
    kept = {name: value for name, value in original.items() if aim is None or name not in AIMS}
    return {**kept, **changes}


def changed_tags(tags: Mapping[str, str], changes: object) -> dict[str, str]:
    """Tags with some set and those that are null taken away (JSON Merge Patch, RFC 7396). Raises FieldError."""
    if not isinstance(changes, Mapping):
        raise FieldError("tags", f"expected an object of names and strings or null, got {_kind_of(changes)}")
    field = _BY_NAME["tags"]
    merged = {name: value for name, value in {**tags, **changes}.items() if value is not None}
    return _check_tags(field, merged, FieldError("tags", f"expected {field.expected()}"))


def for_worker(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, without those LATER fields that have their default: a worker of an earlier version refuses
    fields that it does not know. Nor does a worker need to know of how many segments there are."""
    return {name: value for name, value in experiment.items()
            if name not in ("segments", "segment") and (name not in LATER or value != _BY_NAME[name].default)}


def request_schema() -> dict[str, Any]:
    """JSON Schema of a request."""
    given = {name: {"type": [_BY_NAME[name].kind, "array"] if name in GRID else _BY_NAME[name].kind} for name in AIMS}
    both = [{"required": list(pair), "properties": {name: given[name] for name in pair}}
            for pair in (AIMS[:2], AIMS[1:], (AIMS[0], AIMS[2]))]
    return {"type": "object", "additionalProperties": False, "not": {"anyOf": both},
            "properties": {field.name: field.schema() for field in (*FIELDS, *SHORTHANDS)}}


def runs_of(experiment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of each run of a filled-in experiment, in the order of its grid: one, if no field is a list."""
    if not is_grid(experiment):
        return [dict(experiment)]
    axes = [experiment[name] if isinstance(experiment[name], list) else [experiment[name]] for name in GRID]
    return [{**experiment, **dict(zip(GRID, values, strict=True))} for values in itertools.product(*axes)]


def count_runs(experiment: Mapping[str, Any]) -> int:
    """How many runs a filled-in experiment has."""
    return math.prod(len(experiment[name]) for name in GRID if isinstance(experiment.get(name), list))


def is_grid(experiment: Mapping[str, Any]) -> bool:
    """Whether a filled-in experiment has a field that is a list, be it of one value."""
    return any(isinstance(experiment.get(name), list) for name in GRID)


def _check_grid(field: Field, value: Any) -> Any:
    """The value, or the list of values, in their one form. Raises FieldError."""
    if field.name not in GRID or not isinstance(value, list):
        return _check(field, value)
    if not value:
        raise FieldError(field.name, f"expected {field.expected()}, or a list of at least one such value; "
                                     "got an empty list")
    found = [_check(field, item) for item in value]
    if None in found:
        raise FieldError(field.name, "expected a list of values; null stands only alone")
    if twice := [item for n, item in enumerate(found) if item in found[:n]]:
        raise FieldError(field.name, f"expected different values in the list, got {_shown(twice[0])} twice")
    return found


def _check(field: Field, value: Any) -> Any:
    """The value in its one form (1.0 for an integer field becomes 1). Raises FieldError."""
    wrong = FieldError(field.name, f"expected {field.expected()}, got {_shown(value)}")
    if value is None:
        if field.nullable:
            return None
        raise wrong
    if field.kind == "boolean":
        if not isinstance(value, bool):
            raise wrong
        return value
    if field.kind == "segments" and value == "auto":
        return value
    if field.kind in ("integer", "number", "segments"):
        # bool is an int to Python but not to JSON; NaN and infinity are no JSON at all.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong
        if field.kind != "number" and value != int(value):
            raise wrong
        if (field.low is not None and value < field.low) or (field.high is not None and value > field.high):
            raise wrong
        return value if field.kind == "number" else int(value)
    if field.kind == "tags":
        return _check_tags(field, value, wrong)
    if field.kind == "range":
        number = Field(field.name, "number", None, "", field.low, field.high)
        if not isinstance(value, list) or len(value) != 2:
            raise wrong
        low, high = (_check(number, item) for item in value)
        if not low < high:
            raise wrong
        return [low, high]
    if field.kind == "names":
        if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value) or any(
                item not in field.choices for item in value):
            raise wrong
        return [name for name in field.choices if name in value]
    if not isinstance(value, str) or not _is_text(value):
        raise wrong
    if field.choices and value not in field.choices:
        raise wrong
    if field.pattern and not re.fullmatch(field.pattern.strip("^$"), value):
        raise wrong
    if field.high is not None and len(value) > field.high:
        raise wrong
    return value


def _check_tags(field: Field, value: Any, wrong: FieldError) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > MAX_TAGS:
        raise wrong
    for name, text in value.items():
        if not re.fullmatch(TAG_PATTERN.strip("^$"), name):
            raise FieldError(field.name, f"a tag's name must be {_BY_NAME['codec'].expected()}, got {_shown(name)}")
        if not isinstance(text, str) or len(text) > MAX_TAG_VALUE or not _is_text(text):
            raise FieldError(field.name, f"tag {name}: expected a string of at most {MAX_TAG_VALUE} characters, "
                                         f"got {_shown(text)}")
    return dict(value)


def _is_text(value: str) -> bool:
    """Text that UTF-8 can carry (a lone surrogate is valid in a JSON escape) and that holds no NUL."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _kind_of(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number",
             float: "a number", type(None): "null"}
    return names.get(type(value), "something else")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return _kind_of(value)
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
