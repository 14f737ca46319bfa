"""`orchestrator.py keys add | list | revoke`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from service.http.authentication import ROLES, new_key
from service.http.listening import ServerSettings
from service.jobs.states import timestamp
from service.runtime.settings import SettingsError, add_flags, from_args
from service.storage.registry import Registry
from service.storage.store import Store, StoreError


def keys_command(argv: Sequence[str], settings: type[ServerSettings]) -> int:
    """The command, beside a running orchestrator or without one; the exit code. `settings` has the row `state`."""
    parser = argparse.ArgumentParser(prog="orchestrator.py keys", description="Keys of clients and workers.")
    add_flags(parser, settings)
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add", help="make a key and print it; it is shown only now")
    adding.add_argument("--role", choices=ROLES, required=True)
    adding.add_argument("--label", default="", help="words by which people know it")
    actions.add_parser("list", help="every key, without its secret")
    actions.add_parser("revoke", help="end a key").add_argument("id")
    args = parser.parse_args(list(argv))
    try:
        config: Any = from_args(settings, args)
        store = Store(config.state, exclusive=False)
    except (StoreError, SettingsError) as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    registry = Registry(store)
    try:
        if args.action == "add":
            token, key = new_key(args.role)
            registry.add_key(key.id, key.sha256, key.role, args.label)
            print(token)
        elif args.action == "revoke":
            registry.revoke_key(args.id)
            print(f"{args.id} is revoked")
        else:
            for found in registry.list_keys():
                until = f"revoked {timestamp(found['revoked_s'])}" if found["revoked_s"] else "in force"
                print(f"{found['id']}  {found['role']:7}  {timestamp(found['created_s'])}  {until}  "
                      f"{found['label']}")
    except StoreError as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0
