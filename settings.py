"""Settings: one table drives defaults, flags, environment variables, the config file and --show-config.

A program declares a frozen dataclass whose fields are made with `row`:

    @dataclass(frozen=True)
    class OrchestratorSettings(service.ServerSettings):
        port: int = row(8081, "", "port to listen on; 0 picks a free one", low=0, high=65535)
        state: Path = row(Path("state"), "", "folder that holds the database and the artifacts")
        lease_s: float = row(10.0, "s", "a worker silent for this long loses its attempts", low=1)

    config = load(OrchestratorSettings, sys.argv[1:])      # config.lease_s is a float, checked by mypy

`lease_s` is then `--lease-s`, `NVC_LEASE_S` and `lease_s = 10` in the file of `--config` (TOML).
First found wins: flag, environment, file, default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, its source and what was expected."""


def row(default: Any, unit: str, reason: str, *, low: float | None = None, high: float | None = None,
        choices: Sequence[str] = (), secret: bool = False) -> Any:
    """One row of a settings table: a dataclass field.  `unit` "" for none; `reason`: why it is there and its value.
    bool, int, float, str, Path, and each of them `| None`, are understood."""
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
    raise NotImplementedError


def add_flags(parser: argparse.ArgumentParser, table: type) -> None:
    """Add --config, --show-config and a flag for each row (for programs with subcommands; else use `load`)."""
    raise NotImplementedError


def from_args(table: type[T], args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> T:
    """The settings in force after parsing; raises SettingsError."""
    raise NotImplementedError


def load(table: type[T], argv: Sequence[str], environ: Mapping[str, str] = os.environ, *, prog: str | None = None,
         description: str = "") -> T:
    """Parse the command line; exits 0 after --show-config, 2 with one line on standard error for a wrong setting."""
    raise NotImplementedError


def show(config: Any) -> str:
    """The values in force, one `name = value   # unit; reason; source` a line, secrets hidden."""
    raise NotImplementedError
