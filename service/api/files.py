"""How bytes come in and go out: clips, artifacts, and single pictures of them."""

from pathlib import Path

from service.api.problems import integer_of
from service.api.quotas import Quotas
from service.clips import picture_png
from service.clips.catalogue import Catalogue
from service.http.exchange import Request, Response, file_response
from service.http.parsing import Problem
from service.runtime.logs import Log
from service.scheduling.scheduler import Scheduler
from service.storage.blobs import SHA256, Blobs
from service.storage.store import Store

CONTENT_TYPES = {".json": "application/json", ".mkv": "video/x-matroska", ".png": "image/png", ".svg": "image/svg+xml",
                 ".csv": "text/csv"}


class Files:
    """The endpoints of clips and artifacts."""

    def __init__(self, store: Store, blobs: Blobs, catalogue: Catalogue, scheduler: Scheduler, quotas: Quotas,
                 log: Log) -> None:
        self.store, self.blobs, self.catalogue, self.scheduler = store, blobs, catalogue, scheduler
        self.quotas, self.log = quotas, log

    # --- clips

    def get_clips(self, request: Request) -> Response:
        return Response(200, {"clips": self.catalogue.all()}, etag=True)

    def get_clip(self, request: Request) -> Response:
        return Response(200, self.catalogue.get(request.params["name"]), etag=True)

    def put_clip(self, request: Request) -> Response:
        name = request.params["name"]
        with self.quotas.uploading(request):
            clip, new = self.catalogue.add(name, request.save, request.query, request.principal.key)
        self.log.info("clip-stored", clip=name, sha256=clip["sha256"], bytes=clip["bytes"])
        return Response(201 if new else 200, clip, {"Location": f"/clips/{name}"})

    def delete_clip(self, request: Request) -> Response:
        name = request.params["name"]
        self.catalogue.delete(name)
        self.log.info("clip-deleted", clip=name)
        return Response(204)

    def get_clip_data(self, request: Request) -> Response:
        path, sha256 = self.catalogue.file(request.params["name"])
        return file_response(path, sha256)

    # --- artifacts

    def put_artifact(self, request: Request) -> Response:
        sha256 = request.params["sha256"]
        self.scheduler.checks.artifact(*attempt_of(request))
        if not SHA256.fullmatch(sha256):
            raise Problem(422, "invalid-name", "sha256: expected 64 hexadecimal digits in lower case", field="sha256")
        with self.blobs.receiving("artifact") as part:
            with open(part, "wb") as out:
                size, found = request.save(out)
            if found != sha256:
                raise Problem(422, "digest-mismatch", f"the {size} bytes that arrived have SHA-256 {found}; send them "
                              "again", field="sha256")
            new = self.blobs.keep(part, sha256)
        return Response(201 if new else 200, {"sha256": sha256, "bytes": size})

    def get_artifact(self, request: Request) -> Response:
        run, name = request.params["id"], request.params["name"]
        about = self.store.artifact(run, name)
        if about is None:
            raise Problem(404, "unknown-artifact", f"run {run} has no artifact {name[:100]!r}")
        kind = CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
        if self.blobs.bucket is not None and "redirect" in request.query:
            address = self.blobs.bucket.presigned(about["sha256"], f"{run}-{name}", kind)
            return Response(307, headers={"Location": address})
        path = self.blobs.local(about["sha256"])
        return file_response(path, about["sha256"], name=f"{run}-{name}", content_type=kind)

    def get_picture(self, request: Request) -> Response:
        """One picture of a run's reconstruction or source, or the error of its reconstruction against the source or
        against the reconstruction of another run of the same clip."""
        text, of = request.params["index"], request.query.get("of", "reconstruction")
        other = request.query.get("against")
        if not text.isascii() or not text.isdigit() or len(text) > 8:
            raise Problem(404, "unknown-picture", f"index: expected a number from 0 on, got {text[:60]!r}")
        if of not in ("reconstruction", "source", "error"):
            raise Problem(400, "invalid-parameter", f"of: expected reconstruction, source or error, got {of[:60]!r}",
                          field="of")
        run, index = request.params["id"], int(text)
        first = self._source_of(run, index) if of == "source" else self._reconstruction_of(run, index)
        second = None
        if of == "error":
            second = self._source_of(run, index) if other is None else self._reconstruction_of(other, index)
        return Response(200, picture_png.make(first, second), {"Content-Type": "image/png"}, etag=True)

    def get_pictures(self, request: Request) -> Response:
        """Pictures of a run's reconstruction or source in their order, to be played."""
        of = request.query.get("of", "reconstruction")
        if of not in ("reconstruction", "source"):
            raise Problem(400, "invalid-parameter", f"of: expected reconstruction or source, got {of[:60]!r}",
                          field="of")
        first = integer_of(request, "first", 0, 0, 10**8)
        count = integer_of(request, "count", picture_png.MOST_PLAYED, 1, picture_png.MOST_PLAYED)
        where = (self._source_of if of == "source" else self._reconstruction_of)(request.params["id"], first)
        return Response(200, picture_png.Playback(*where, count), {"Cache-Control": "no-store"})

    def _reconstruction_of(self, run: str, index: int) -> tuple[Path, int]:
        about = self.store.artifact(run, "reconstruction.mkv")
        if about is None:
            raise Problem(404, "unknown-artifact", f"run {run[:100]} has kept no reconstruction")
        return self.blobs.local(about["sha256"]), index

    def _source_of(self, run: str, index: int) -> tuple[Path, int]:
        found = self.store.run(run)
        name = f"sha256:{found.clip['sha256']}" if found.clip.get("sha256") else found.clip["name"]
        return self.catalogue.file(name)[0], index + found.settings["first_frame"]


def attempt_of(request: Request) -> tuple[str, int, str | None]:
    """Run, attempt and secret of the header `Attempt: RUN NUMBER SECRET`; ("", 0, None) without it. Raises Problem."""
    given = request.headers.get("attempt")
    if given is None:
        return "", 0, None
    words = given.split()
    if len(words) != 3 or not words[1].isdecimal() or len(words[1]) > 9:
        raise Problem(400, "invalid-attempt", "Attempt: expected a run, the number of its attempt and its secret",
                      field="attempt")
    return words[0], int(words[1]), words[2]
