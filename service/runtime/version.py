"""Which version of this program runs, and from which commit it was made."""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"

_HERE = Path(__file__).resolve().parents[2]


def commit(root: Path = _HERE) -> str:
    """The commit that ``root`` was checked out or installed from; "unknown" where nothing says so."""
    noted = root / "COMMIT"  # written by systemd/install.sh, which installs no .git
    if noted.is_file():
        return noted.read_text().strip()
    git = root / ".git"
    if not git.is_dir():
        return "unknown"
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = git / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        if line.endswith(" " + name):
            return line.split()[0]
    return "unknown"
