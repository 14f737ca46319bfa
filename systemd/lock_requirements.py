#!/usr/bin/env python3
"""Which archives an installation got, as a requirements file with hashes: lock_requirements.py REPORT ... > FILE

REPORT: what `pip install --report` wrote. `pip install --require-hashes -r FILE` then takes these archives and no
other, so that every host runs the same bytes, and an index that changes one is noticed. Standard library only."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence


def locked(reports: Sequence[dict]) -> list[str]:
    """Lines of the file, by name. ValueError names a package that came without a hash, as one from a folder does."""
    lines = {}
    for report in reports:
        for item in report["install"]:
            name, version = item["metadata"]["name"], item["metadata"]["version"]
            digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
            if not digest:
                raise ValueError(f"{name} {version} came without a SHA-256, from {item['download_info']['url']}")
            # A build for one kind of machine (2.1+cpu) is the version without that, as requirements name it.
            lines[name.lower()] = f"{name}=={version.split('+')[0]} --hash=sha256:{digest}"
    return [lines[name] for name in sorted(lines)]


def main() -> int:
    reports = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            reports.append(json.load(file))
    try:
        print("\n".join(locked(reports)))
    except ValueError as error:
        print(f"lock_requirements.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
