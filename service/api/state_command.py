"""`orchestrator.py backup FOLDER | restore FOLDER | doctor`: what is done with a state folder from the shell."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.http.listening import ServerSettings
from service.runtime.settings import SettingsError, add_flags, from_args
from service.s3 import Bucket, S3Error
from service.storage.backup import backup, doctor, restore
from service.storage.records import StoreError

COMMANDS = ("backup", "restore", "doctor")


def state_command(argv: Sequence[str], settings: type[ServerSettings]) -> int:
    """The command; the exit code: 0 done or healthy, 1 failed or damaged. `settings` has the row `state`."""
    parser = argparse.ArgumentParser(prog="orchestrator.py", description="Backup, restore, inspection of the state.")
    add_flags(parser, settings)
    parser.add_argument("action", choices=COMMANDS, help="backup: copy the state, also of a running orchestrator; "
                        "restore: make a backup the state; doctor: read everything, say what is damaged and what to do")
    parser.add_argument("folder", type=Path, nargs="?", help="of the backup")
    args = parser.parse_args(list(argv))
    if (args.folder is None) != (args.action == "doctor"):
        parser.error("backup and restore take a folder, doctor takes none")
    try:
        config: Any = from_args(settings, args)
        bucket = Bucket(config.artifacts) if config.artifacts else None
        if args.action == "backup":
            made = backup(config.state, args.folder, bucket)
            print(f"{args.folder}: the database and {made['files']} files of {made['bytes']} bytes")
        elif args.action == "restore":
            restore(args.folder, config.state)
            print(f"{config.state}: restored from {args.folder}")
        else:
            complaints = list(doctor(config.state, bucket))
            print("\n".join(complaints) or f"{config.state}: healthy")
            return 1 if complaints else 0
    except (StoreError, SettingsError, S3Error, OSError) as error:
        print(f"orchestrator.py {args.action}: {error}", file=sys.stderr)
        return 1
    return 0
