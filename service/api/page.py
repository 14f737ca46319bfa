"""The page for browsers: the files of the folder page/, as they were when the program started.

They hold no data and need no key; the scripts among them ask the same addresses that everybody else does. All their
links are relative, so the service may stand behind a path prefix.
"""

from pathlib import Path

from service.http.exchange import Request, Response
from service.http.parsing import Problem

FOLDER = Path(__file__).resolve().parents[2] / "page"
# Scripts and styles come from here alone and never from the document; nobody may frame it or read its base elsewhere.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
         ".js": "text/javascript; charset=utf-8"}
INDEX = "index.html"


class Page:
    """The files by name."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Raises OSError when the folder cannot be read."""
        self._files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in TYPES}
        if INDEX not in self._files:
            raise FileNotFoundError(f"{folder} has no {INDEX}")

    def get(self, request: Request) -> Response:
        """The endpoint of each file; the index where none is named."""
        name = request.params.get("name", INDEX)
        found = self.file(name)
        if found is None:
            raise Problem(404, "not-found", f"the page has no file {name[:100]!r}")
        return Response(200, found[0], found[1], etag=True)

    def file(self, name: str) -> tuple[bytes, dict[str, str]] | None:
        """A file and its header fields; None if there is none of this name."""
        if name not in self._files:
            return None
        return self._files[name], {"Content-Type": TYPES[Path(name).suffix], "Content-Security-Policy": POLICY,
                                   "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
                                   "Cache-Control": "no-cache"}
