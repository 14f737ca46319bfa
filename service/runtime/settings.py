"""Settings: one table drives defaults, flags, environment variables, the config file and --show-config.

A program declares a frozen dataclass whose fields are made with `row`:

    @dataclass(frozen=True)
    class OrchestratorSettings(service.ServerSettings):
        port: int = row(8081, "", "port to listen on; 0 picks a free one", low=0, high=65535)
        state: Path = row(Path("state"), "", "folder that holds the database and the artifacts")
        lease_s: float = row(10.0, "s", "a worker silent for this long loses its attempts", low=1)

    config = load(OrchestratorSettings, sys.argv[1:])      # config.lease_s is a float, checked by mypy

`lease_s` is then `--lease-s`, `NVC_LEASE_S` and `lease_s = 10` in the file of `--config` (TOML).
First found wins: flag, environment, systemd credential (secrets only), file, default.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PREFIX = "NVC_"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, its source and what was expected."""


def row(default: Any, unit: str, reason: str, *, low: float | None = None, high: float | None = None,
        choices: Sequence[str] = (), secret: bool = False) -> Any:
    """One row of a settings table: a dataclass field.

    unit      "" for none
    reason    one line: what it is for, and why this value; becomes the help text
    low, high inclusive bounds of numbers; choices: allowed texts
    secret    never shown; may also come from a systemd credential of the same name

    bool, int, float, str, Path, and each of them `| None`, are understood as types.
    """
    return field(default=default, metadata={"unit": unit, "reason": reason, "low": low, "high": high,
                                            "choices": tuple(choices), "secret": secret})


@dataclass(frozen=True)
class Row:
    """A row as others read it (docs, tests, --show-config)."""

    name: str
    type: str
    unit: str
    default: Any
    reason: str
    flag: str
    variable: str


def rows(table: type) -> list[Row]:
    """The rows of a settings dataclass, in order."""
    kinds = _kinds(table)
    return [Row(f.name, kinds[f.name][0].__name__, f.metadata["unit"], f.default, f.metadata["reason"], _flag(f.name),
                _variable(f.name)) for f in fields(table) if "reason" in f.metadata]


def add_flags(parser: argparse.ArgumentParser, table: type) -> None:
    """Add --config, --show-config and a flag for each row (for programs with subcommands; else use `load`)."""
    parser.add_argument("--config", metavar="FILE", help="settings in TOML, one `name = value` a line")
    parser.add_argument("--show-config", action="store_true", help="print the values in force and leave")
    kinds = _kinds(table)
    for item in rows(table):
        unit = f" {item.unit}" if item.unit else ""
        default = "none" if item.default is None else item.default
        text = f"{item.reason} (default {default}{unit}; {item.variable})".replace("%", "%%")
        if kinds[item.name][0] is bool:
            parser.add_argument(item.flag, dest=f"set_{item.name}", default=None, help=text,
                                action=argparse.BooleanOptionalAction)
        else:
            choices = next(f for f in fields(table) if f.name == item.name).metadata["choices"]
            metavar = "{" + ",".join(choices) + "}" if choices else item.type.upper()
            parser.add_argument(item.flag, dest=f"set_{item.name}", default=None, help=text, metavar=metavar)


def from_args(table: type[T], args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> T:
    """The settings in force after parsing; raises SettingsError."""
    known = [f for f in fields(table) if "reason" in f.metadata]  # type: ignore[arg-type]
    kinds = _kinds(table)
    path = args.config or environ.get(f"{PREFIX}CONFIG") or None
    document = _read_file(Path(path)) if path else {}
    for name in document:
        if name not in {f.name for f in known}:
            raise SettingsError(f"{path}: unknown setting {name!r}")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for f in known:
        found = _find(f.name, f.metadata["secret"], args, environ, document, path)
        if found is not None:
            value, sources[f.name] = found
            values[f.name] = _convert(f.name, value, kinds[f.name], f.metadata, sources[f.name])
    config = table(**values)
    object.__setattr__(config, "_sources", sources)  # frozen for its users; only `show` reads this
    return config


def load(table: type[T], argv: Sequence[str], environ: Mapping[str, str] = os.environ, *, prog: str | None = None,
         description: str = "") -> T:
    """Parse the command line; exits 0 after --show-config, 2 with one line on standard error for a wrong setting."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_flags(parser, table)
    args = parser.parse_args(list(argv))
    try:
        config = from_args(table, args, environ)
    except SettingsError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if args.show_config:
        print(show(config), end="")
        raise SystemExit(0)
    return config


def show(config: Any) -> str:
    """The values in force as TOML that --config reads back: `name = value  # unit; reason; source`, secrets hidden."""
    sources = getattr(config, "_sources", {})
    lines = []
    for f in fields(config):
        if "reason" not in f.metadata:
            continue
        value = getattr(config, f.name)
        notes = [f.metadata["unit"], f.metadata["reason"], sources.get(f.name, "default")]
        if value is None:
            text = f"# {f.name} is not set"
        elif f.metadata["secret"]:
            text = f"# {f.name} is set and not shown"
        else:
            plain = value if isinstance(value, bool | int | float) else str(value)
            text = f"{f.name} = {json.dumps(plain, ensure_ascii=False)}"
        lines.append(f"{text}  # {'; '.join(note for note in notes if note)}\n")
    return "".join(lines)


def markdown(table: type, *, inherited: bool = True) -> str:
    """The rows as a table for the docs, which tests compare with the docs.  `inherited`: also those of base classes."""
    own = set(table.__annotations__)
    lines = ["| setting | default | unit | why |", "|---|---|---|---|"]
    for item in rows(table):
        if inherited or item.name in own:
            default = "none" if item.default is None else str(item.default).lower() if item.type == "bool" \
                else f"`{item.default}`" if item.default != "" else "empty"
            lines.append(f"| `{item.flag}`, `{item.variable}` | {default} | {item.unit} | {item.reason} |")
    return "\n".join(lines) + "\n"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _kinds(table: type) -> dict[str, tuple[type, bool]]:
    """name -> (type, may be None)"""
    kinds = {}
    for name, hint in typing.get_type_hints(table).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds[name] = (next(o for o in options if o is not type(None)), type(None) in options)
    return kinds


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--config {path}: cannot be read as TOML: {error}") from error


def _find(name: str, secret: bool, args: argparse.Namespace, environ: Mapping[str, str],
          document: Mapping[str, Any], path: str | None) -> tuple[Any, str] | None:
    """-> (value, where it came from), None when only the default is left."""
    flag = getattr(args, f"set_{name}", None)
    if flag is not None:
        return flag, _flag(name)
    variable = environ.get(_variable(name), "")  # empty is how an EnvironmentFile says "not set"
    if variable != "":
        return variable, _variable(name)
    if secret and environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(environ["CREDENTIALS_DIRECTORY"], name)
        try:
            if credential.is_file():
                return credential.read_text(encoding="utf-8").strip(), "credential"
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"credential {name}: cannot be read: {error}") from error
    if name in document:
        return document[name], str(path)
    return None


def _convert(name: str, value: Any, kind: tuple[type, bool], metadata: Mapping[str, Any], source: str) -> Any:
    """The value in its type, within its bounds."""
    wanted, _ = kind
    where = f"{name} (from {source})"
    if wanted is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise SettingsError(f"{where}: {value!r} is not true or false")
    if wanted in (int, float):
        return _number(where, value, wanted, metadata)
    if not isinstance(value, str):
        raise SettingsError(f"{where}: {value!r} is not a text")
    if metadata["choices"] and value not in metadata["choices"]:
        raise SettingsError(f"{where}: {value!r} is not one of {', '.join(metadata['choices'])}")
    return wanted(value)


def _number(where: str, value: Any, wanted: type, metadata: Mapping[str, Any]) -> int | float:
    name = "a whole number" if wanted is int else "a number"
    try:
        number = wanted(value) if isinstance(value, str) else value
    except ValueError:
        raise SettingsError(f"{where}: {value!r} is not {name}") from None
    if isinstance(number, bool) or not isinstance(number, int | float) or (wanted is int and number != int(number)):
        raise SettingsError(f"{where}: {value!r} is not {name}")
    low, high = metadata["low"], metadata["high"]
    if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
        bounds = f"{'' if low is None else f'at least {low}'}{' and ' if None not in (low, high) else ''}" \
                 f"{'' if high is None else f'at most {high}'}" or "finite"
        raise SettingsError(f"{where}: {value} is out of range; expected {bounds}")
    return wanted(number)
