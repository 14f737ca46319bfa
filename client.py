"""Talk to an orchestrator from a shell or a script.

    python client.py submit FIELD=VALUE …      submit an experiment; prints its id
    python client.py submit --watch …          and follow it to its end
    python client.py submit set=NAME [--clips FOLDER] …
                                               a set of clips (sets/, or a file NAME.toml) with its settings; clips that
                                               the service does not have yet are uploaded from FOLDER
    python client.py report ID [--anchor CURVE] [--format markdown|csv|latex]
                                               the table that papers print: BD-rates by class, coding times
    python client.py watch ID                  show progress until it has ended
    python client.py get ID [NAME]             its status document, or the artifact NAME, as bytes, to standard output
    python client.py list [--state S] [--tag NAME:VALUE] [--search WORDS] [--limit N]
    python client.py cancel ID                 stop it, as far as it has not ended
    python client.py tag ID NAME=VALUE…        set tags; NAME= takes one away
    python client.py download ID [FOLDER]      its artifacts and its document, into FOLDER (the id, if none is given)
    python client.py delete ID                 forget it, with its artifacts; not while it is unfinished
    python client.py rerun ID                  the same again; prints the new id
    python client.py upload FILE [NAME] [width=W height=H fps=R pixel_format=F]
                                               a clip: a video, picture, archive or folder of pictures; of what has no
                                               header and does not say it by its name, the format
    python client.py plot ID NAME              a sweep's plot to standard output: psnr_y.svg, psnr.png, ssim_db.svg, …
    python client.py export ID FOLDER          its runs as a table, runs.csv, and its curves in CompressAI's layout, one
                                               file each, for its plot command
    python client.py bd ID [--anchor FILE …] [--method pchip|akima|cubic]
                                               its BD-rates, against result files of CompressAI or DCVC where given

FIELD is any field of an experiment. VALUE is JSON where it can be read as JSON, else text; several values with commas
make a sweep in the fields that may be lists; tags.NAME=VALUE sets a tag:

    python client.py submit --watch clip=carphone,bikes codec=nvc,x264 quality=8,16,24,32,40 tags.paper=table-2
    python client.py submit frames=30 psnr_db=40 "label=fourth try"
    python client.py get exp_1795402182_fbf362 stream.nvc > stream.nvc
    python client.py plot exp_1795402182_fbf362 psnr_y.svg --clip bikes > bikes.svg
    python client.py bd exp_1795402182_fbf362 --anchor vtm.json ssf2020.json

Options:
    --url URL      the orchestrator, or NVC_URL; else http://127.0.0.1:8081
    --json         JSON on standard output, one document a line, and no progress bar
    NVC_KEY        environment variable: the key to show, where the orchestrator wants one

Submitting is repeated by itself when the answer is lost, under one Idempotency-Key, and so makes one experiment.
Exit codes: 0 done; 1 failed, with one line on standard error, also when a watched experiment failed or was cancelled;
2 wrong usage. Ctrl-C ends the watching, not the experiment.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("client.py: Python 3.11 or newer is needed")


import argparse
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from service.http.client import Ambiguous, Client, ClientError, Refused, Unreachable
from service.jobs.fields import FIELDS, GRID, SHORTHANDS
from service.jobs.states import TERMINAL, State
from service.reports.sets import ClipSet, read_set
from service.reports.sets import known as known_sets
from service.reports.tables import FORMATS, tables_of
from service.reports.transfers import download, export, packed, upload_set

KINDS = {field.name: field.kind for field in (*FIELDS, *SHORTHANDS)}
WAIT_S = 25.0  # the orchestrator answers after this long even if nothing has changed


def request_of(words: Sequence[str]) -> dict[str, Any]:
    """The experiment that FIELD=VALUE words describe. Raises ValueError naming the word."""
    request: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            known = ", ".join(KINDS)
            raise ValueError(f"{word!r}: FIELD=VALUE was expected; fields are {known}")
        if name.startswith("tags."):
            request.setdefault("tags", {})[name.removeprefix("tags.")] = text
            continue
        one = str if KINDS.get(name) == "string" and text != "null" else value_of
        listed = (name in GRID and "," in text) or KINDS.get(name) in ("names", "range")
        if text.startswith("["):
            request[name] = value_of(text)
        else:
            request[name] = [one(part) for part in text.split(",") if part] if listed else one(text)
    return request


def with_set(request: dict[str, Any], found: ClipSet) -> dict[str, Any]:
    """The request with the set's clips and tag, and its settings where the request does not say other."""
    aims = {"quality", "bitrate_mbps", "psnr_db", "psnr_range"}
    usual = {name: value for name, value in found.settings.items() if not (name in aims and aims & request.keys())}
    return {**usual, "clip": [clip.name for clip in found.clips], **request,
            "tags": {"set": found.name, **request.get("tags", {})}}


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def watch(client: Client, name: str, quiet: bool) -> dict[str, Any]:
    """Follow an experiment, with a bar on standard error unless `quiet`; its last document. Raises ClientError."""
    from tqdm import tqdm

    reply = client.get(f"/experiment/{name}/status", read_s=WAIT_S + 10)  # before a bar is drawn: it may not exist
    tag = ""
    with tqdm(total=1.0, disable=quiet, bar_format="{desc:<40}{bar:30}{percentage:4.0f} %  {elapsed}") as bar:
        while True:
            if reply.document is not None:  # else 304
                found, tag = reply.document, reply.headers.get("etag", "")
                fraction, words = how_far(found)
                bar.set_description_str(words[:40], refresh=False)
                bar.n = fraction
                bar.refresh()
                if found["status"] in TERMINAL:
                    return found
            headers = {"Prefer": f"wait={WAIT_S:g}", "If-None-Match": tag}
            reply = client.get(f"/experiment/{name}/status", headers=headers, read_s=WAIT_S + 10)


def how_far(found: dict[str, Any]) -> tuple[float, str]:
    """Of a status document: the fraction done, and a few words."""
    if "counts" in found:
        counts = found["counts"]
        ended = sum(counts[state] for state in TERMINAL)
        return ended / counts["total"], f"{ended}/{counts['total']} runs, {counts['failed']} failed"
    now = found.get("progress") or {}
    if found["status"] in TERMINAL:
        return 1.0, found["status"]
    if waits := found.get("waits_for"):
        return 0.0, f"queued: {waits['reason']}"
    frames = f" {now['frame']}/{now['frames']}" if now.get("frames") else ""
    return now.get("fraction") or 0.0, f"{found['status']} {now.get('phase') or ''}{frames}"


def line_of(found: dict[str, Any]) -> str:
    """One line for people, of a status document or a row of the list."""
    metrics = found.get("metrics") or {}
    parts = [found["experiment_id"], f"{found['status']:10}"]
    if metrics.get("bitrate_mbps") is not None:
        parts.append(f"{metrics['bitrate_mbps']:.4f} Mbit/s  {metrics['psnr_db']:.2f} dB")
    counts = found.get("counts") or found.get("runs") or {}
    if isinstance(counts, dict) and counts.get("total", 1) > 1:
        parts.append(f"{counts['completed']}/{counts['total']} runs")
    if found.get("error"):
        parts.append(str(found["error"].get("detail") or found["error"].get("type")))
    return "  ".join([*parts, found.get("label") or ""]).rstrip()


def read_anchors(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Raises ValueError naming the file."""
    found = []
    for path in paths:
        try:
            found.append({"name": Path(path).name, "document": json.loads(Path(path).read_bytes())})
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def lines_of_bd(found: dict[str, Any]) -> Iterator[str]:
    """A line for each pair of an anchor and one of the experiment's curves (without anchors: for each pair of curves),
    with a figure or the reason for none."""
    matrix = found["bd_rate"]
    anchors = {curve["curve"] for curve in found["curves"] if curve.get("anchor")}
    names = matrix["curves"]
    pairs = [(row, column) for row, anchor in enumerate(names) for column, test in enumerate(names)
             if (anchor in anchors and test not in anchors if anchors else anchor != test)]
    for metric, tables in matrix["metrics"].items():
        for clip, table in tables["per_clip"].items():
            for row, column in pairs:
                cell = table[row][column]
                value = f"N/A: {cell['reason']}" if cell["percent"] is None else (
                    f"{cell['percent']:+7.2f} %  ({100 * cell['overlap']:.0f} % overlap)")
                yield f"{metric:<14} {clip:<20} {names[column]} against {names[row]}: {value}"
    if len(names) < 2:
        yield "no BD-rate: the experiment has one curve, and nothing to compare it with; --anchor FILE gives that"
    for clip in found["unmatched"]:
        yield f"no clip {clip} in the experiment"


def run(client: Client, args: argparse.Namespace) -> int:
    def say(document: dict[str, Any], words: str) -> None:
        print(json.dumps(document, ensure_ascii=False) if args.json else words, flush=True)

    if args.command == "list":
        query = {name: str(value) for name in ("state", "tag", "search", "limit")
                 if (value := getattr(args, name)) is not None}
        for row in client.get("/experiments", params=query).document["experiments"]:
            say(row, line_of(row))
        return 0
    if args.command == "get":
        if args.name:
            client.download(f"/experiment/{args.id}/artifacts/{args.name}", sys.stdout.buffer)
        else:
            print(json.dumps(client.get(f"/experiment/{args.id}/status", read_s=60).document, ensure_ascii=False,
                             indent=None if args.json else 1))
        return 0
    if args.command == "upload":
        path = Path(args.file)
        names = [word for word in args.words if "=" not in word] or [path.name]
        said = urlencode(dict(word.split("=", 1) for word in args.words if "=" in word))
        with packed(path) as file:
            made = client.put_file(f"/clips/{quote(names[0], safe='')}{'?' if said else ''}{said}", file,
                                   read_s=600).document
        converted = f", {made['converted']}" if made.get("converted") else ""
        say(made, f"{made['name']}  {made['width']}x{made['height']}, {made['frames']} pictures{converted}")
        return 0
    if args.command in ("cancel", "rerun"):
        made = client.post(f"/experiment/{args.id}/{args.command}", {}, idempotent=args.command == "cancel").document
        say(made, f"{made['experiment_id']}  {made['status']}")
        return 0
    if args.command == "tag":
        changes = dict(word.partition("=")[::2] for word in args.words)
        made = client.patch(f"/experiment/{args.id}/tags",
                            {name: text or None for name, text in changes.items()}).document
        say(made, "  ".join(f"{name}={text}" for name, text in made["tags"].items()))
        return 0
    if args.command == "delete":
        client.delete(f"/experiment/{args.id}")
        say({"deleted": args.id}, f"{args.id}  deleted")
        return 0
    if args.command == "download":
        for path in download(client, args.id, Path(args.folder or args.id)):
            say({"file": str(path)}, str(path))
        return 0
    if args.command == "plot":
        query = {name: value for name in ("clip", "rate") if (value := getattr(args, name)) is not None}
        client.download(f"/experiment/{args.id}/plots/{args.name}{'?' if query else ''}{urlencode(query)}",
                        sys.stdout.buffer)
        return 0
    if args.command == "export":
        for path in export(client, args.id, Path(args.folder)):
            say({"file": str(path)}, str(path))
        return 0
    if args.command == "bd":
        body = {"anchors": read_anchors(args.anchor), "method": args.method}
        found = client.post(f"/experiment/{args.id}/bd_rate", body, idempotent=True, read_s=60).document
        say(found, "\n".join(lines_of_bd(found)))
        return 0
    if args.command == "report":
        found = client.get(f"/experiment/{args.id}/status", read_s=60).document
        name = args.set or found["settings"]["tags"].get("set", "")
        groups = read_set(name).groups if args.set or name in known_sets() else None
        print(FORMATS[args.format](tables_of(found, args.anchor, groups)))
        return 0
    if args.command == "submit":
        request = request_of(args.fields)
        if (name := request.pop("set", None)) is not None:
            clips = read_set(str(name))
            upload_set(client, clips, args.clips)
            request = with_set(request, clips)
        made = client.post("/experiment", request, idempotent=True,
                           headers={"Idempotency-Key": secrets.token_hex(16)}).document
        args.id = made["experiment_id"]
        if not args.watch:
            say(made, args.id)
            return 0
    found = watch(client, args.id, args.json)
    say(found, line_of(found))
    return 0 if found["status"] == State.COMPLETED else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="client.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("NVC_URL", "http://127.0.0.1:8081"))
    parser.add_argument("--json", action="store_true")
    anywhere = argparse.ArgumentParser(add_help=False)      # behind the command, as well as before it
    anywhere.add_argument("--url", default=argparse.SUPPRESS)
    anywhere.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    about = "\n".join(f"    {field.name:20} {field.about}" for field in (*FIELDS, *SHORTHANDS))
    submitting = commands.add_parser("submit", parents=[anywhere], epilog=f"fields:\n{about}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    submitting.add_argument("--watch", action="store_true")
    submitting.add_argument("--clips", type=Path, metavar="FOLDER")
    submitting.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    reporting = commands.add_parser("report", parents=[anywhere])
    reporting.add_argument("id", metavar="ID")
    reporting.add_argument("--anchor", metavar="CURVE")
    reporting.add_argument("--set", metavar="NAME", help="whose classes; default: of the set that was submitted")
    reporting.add_argument("--format", choices=list(FORMATS), default="markdown")
    commands.add_parser("watch", parents=[anywhere]).add_argument("id", metavar="ID")
    getting = commands.add_parser("get", parents=[anywhere])
    getting.add_argument("id", metavar="ID")
    getting.add_argument("name", metavar="NAME", nargs="?")
    listing = commands.add_parser("list", parents=[anywhere])
    listing.add_argument("--state", choices=[state.value for state in State])
    listing.add_argument("--tag")
    listing.add_argument("--search", metavar="WORDS")
    listing.add_argument("--limit", type=int)
    downloading = commands.add_parser("download", parents=[anywhere])
    downloading.add_argument("id", metavar="ID")
    downloading.add_argument("folder", metavar="FOLDER", nargs="?")
    for verb in ("cancel", "rerun", "delete"):
        commands.add_parser(verb, parents=[anywhere]).add_argument("id", metavar="ID")
    tagging = commands.add_parser("tag", parents=[anywhere])
    tagging.add_argument("id", metavar="ID")
    tagging.add_argument("words", metavar="NAME=VALUE", nargs="+")
    uploading = commands.add_parser("upload", parents=[anywhere])
    uploading.add_argument("file", metavar="FILE")
    uploading.add_argument("words", metavar="NAME or FIELD=VALUE", nargs="*")
    plotting = commands.add_parser("plot", parents=[anywhere])
    plotting.add_argument("id", metavar="ID")
    plotting.add_argument("name", metavar="NAME")
    plotting.add_argument("--clip")
    plotting.add_argument("--rate", choices=["bitrate_mbps", "bpp"])
    exporting = commands.add_parser("export", parents=[anywhere])
    exporting.add_argument("id", metavar="ID")
    exporting.add_argument("folder", metavar="FOLDER")
    against = commands.add_parser("bd", parents=[anywhere])
    against.add_argument("id", metavar="ID")
    against.add_argument("--anchor", metavar="FILE", nargs="+", action="extend", default=[])
    against.add_argument("--method", choices=["pchip", "akima", "cubic"], default="pchip")
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        parser.error(f"{unknown[0]}: fields are written {name}=VALUE" if name in KINDS
                     else f"unrecognized arguments: {' '.join(unknown)}")
    args.url = args.url if "://" in args.url else f"http://{args.url}"
    try:
        return run(Client(args.url, key=os.environ.get("NVC_KEY")), args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail again at exit
        return 1
    except (Unreachable, Ambiguous) as error:
        reason = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
        print(f"client.py: the orchestrator at {args.url} does not answer ({reason[1] if reason else error}); is it "
              "running there? --url or NVC_URL says where", file=sys.stderr)
        return 1
    except (ClientError, OSError, ValueError) as error:
        detail = error.problem.get("detail", str(error)) if isinstance(error, Refused) else str(error)
        print(f"client.py: {detail}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
