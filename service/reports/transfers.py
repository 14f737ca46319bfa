"""Files between a client's disk and the service: clips of a set up; artifacts, tables and curves down."""

from __future__ import annotations

import csv
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from service.http.client import Client
from service.reports.sets import ClipSet, SetError


@contextmanager
def packed(path: Path) -> Iterator[Path]:
    """The file, or a folder of pictures as one file: TAR, since pictures are compressed already. Raises OSError."""
    if not path.is_dir():
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".tar") as out:
        with tarfile.open(fileobj=out, mode="w") as archive:
            for each in sorted(path.iterdir()):
                if each.is_file():
                    archive.add(each, each.name)
        out.flush()
        yield Path(out.name)


def upload_set(client: Client, found: ClipSet, folder: Path | None) -> None:
    """Upload what the service does not have of a set's clips. Raises SetError naming what is missing, ClientError."""
    here = {clip["name"] for clip in client.get("/clips", read_s=60).document["clips"]}
    missing = [clip for clip in found.clips if clip.name not in here]
    paths = {clip.name: next(iter(sorted(folder.rglob(clip.file))), None) if folder and clip.file else None
             for clip in missing}
    if lost := [clip.file or clip.name for clip in missing if paths[clip.name] is None]:
        where = f"{folder} does not have them" if folder else "--clips FOLDER says where they are"
        raise SetError(f"set {found.name}: {len(lost)} clips are not at the service, and {where}: "
                       f"{', '.join(lost[:5])}{', …' if len(lost) > 5 else ''}. Source: {found.source}")
    for clip in missing:
        path = paths[clip.name]
        assert path is not None  # else it is among the lost
        query = f"?{urlencode(clip.raw_format)}" if clip.raw_format else ""
        made = client.put_file(f"/clips/{quote(clip.name, safe='')}{query}", path, read_s=600).document
        wrong, remarks = clip.differences(made)
        if wrong:
            raise SetError(f"{path}: {wrong}")
        print(f"uploaded {clip.name}: {'; '.join(remarks) or 'as the set says'}", file=sys.stderr)


def export(client: Client, name: str, folder: Path) -> Iterator[Path]:
    """Write the runs of an experiment as a table, and each curve as a file of CompressAI's layout. Raises ClientError,
    OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    found = client.get(f"/experiment/{name}/status", read_s=60).document
    if "runs" not in found:
        rows = [{"run": found["experiment_id"], "status": found["status"], **(found.get("metrics") or {})}]
    else:
        rows = [{"run": run["run"], "status": run["status"], **run["setting"], **(run["metrics"] or {})}
                for run in found["runs"]]
    columns = dict.fromkeys(column for row in rows for column in row)
    with open(folder / "runs.csv", "w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(columns))
        table.writeheader()
        table.writerows(rows)
    yield folder / "runs.csv"
    curves = found.get("curves", [{"curve": None}])
    for curve in dict.fromkeys(curve["curve"] for curve in curves):
        made = client.get(f"/experiment/{name}/compressai", params={"curve": curve} if curve else {}).document
        path = folder / f"{re.sub('[^A-Za-z0-9._-]+', '-', made['name'])}.json"
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        yield path


def download(client: Client, name: str, folder: Path) -> Iterator[Path]:
    """Write an experiment's document, and the artifacts of each of its runs (of a sweep, in a folder for each run).
    Raises ClientError, OSError."""
    found = client.get(f"/experiment/{name}/status", read_s=60).document
    folder.mkdir(parents=True, exist_ok=True)
    document = folder / "experiment.json"
    document.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    yield document
    for run in found.get("runs", ()):
        yield from download(client, run["run"], folder / run["run"].rpartition(".")[2])
    for file, about in found.get("artifacts", {}).items():
        part = folder / f"{file}.part"
        with part.open("wb") as out:
            client.download(about["url"], out, sha256=about["sha256"])
        part.replace(folder / file)
        yield folder / file
