"""`orchestrator.py keys add | list | revoke`."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from service.api.quotas import Quota
from service.http.authentication import ROLES, new_key
from service.http.listening import ServerSettings
from service.jobs.states import timestamp
from service.runtime.settings import SettingsError, add_flags, from_args
from service.storage.registry import Registry
from service.storage.store import Store, StoreError


def keys_command(argv: Sequence[str], settings: type[ServerSettings]) -> int:
    """The command, beside a running orchestrator or without one; the exit code. `settings` has the row `state`."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)     # wherever they stand
    add_flags(flags, settings)
    given, rest = flags.parse_known_args(list(argv))
    parser = argparse.ArgumentParser(prog="orchestrator.py keys", description="Keys of clients and workers.",
                                     epilog="The settings of orchestrator.py are flags here too, such as --state DIR.",
                                     allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add", help="make a key and print it; it is shown only now")
    adding.add_argument("--role", choices=ROLES, required=True)
    adding.add_argument("--expires", type=expiry_s, metavar="WHEN",
                        help="90d, 12h, or a date as 2027-01-31; else never")
    adding.add_argument("--quota", type=quota, default={}, metavar="BOUNDS",
                        help="of a client in 24 hours, in place of the settings': experiments=100,runs=1000,gb=50")
    adding.add_argument("--label", default="", help="words by which people know it")
    actions.add_parser("list", help="every key, without its secret")
    actions.add_parser("revoke", help="end a key").add_argument("id")
    args = parser.parse_args(rest)
    try:
        config: Any = from_args(settings, given)
        store = Store(config.state, exclusive=False)
    except (StoreError, SettingsError) as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    registry = Registry(store)
    try:
        if args.action == "add":
            token, key = new_key(args.role)
            registry.add_key(key.id, key.sha256, key.role, args.label, args.expires, args.quota)
            print(token)
        elif args.action == "revoke":
            registry.revoke_key(args.id)
            print(f"{args.id} is revoked")
        else:
            for found in registry.list_keys():
                until = "in force"
                if found["revoked_s"]:
                    until = f"revoked {timestamp(found['revoked_s'])}"
                elif found["expires_s"]:
                    word = "expired" if found["expires_s"] <= time.time() else "in force until"
                    until = f"{word} {timestamp(found['expires_s'])}"
                print(f"{found['id']}  {found['role']:7}  {timestamp(found['created_s'])}  {until}  "
                      f"{found['label']}")
    except StoreError as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def quota(text: str) -> dict[str, float]:
    """Bounds of a key. Raises ArgumentTypeError."""
    try:
        return Quota.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def expiry_s(text: str) -> float:
    """When a key ends, in seconds since 1970. Raises ArgumentTypeError."""
    found = re.fullmatch(r"([1-9]\d{0,4})([dh])", text)
    if found:
        return time.time() + int(found[1]) * (86_400 if found[2] == "d" else 3600)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected 90d, 12h or a date as 2027-01-31, got {text!r}") from None
    at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if at_s <= time.time():
        raise argparse.ArgumentTypeError(f"{text} has passed")
    return at_s
