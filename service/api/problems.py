"""How the orchestrator's endpoints say no: one table of errors, and the reading of small parameters."""

import errno
from collections.abc import Callable

from service.api import worker_messages as messages
from service.clips import picture_png, probe
from service.clips.catalogue import FormatError, NameReserved, NotFetched, UnknownClip
from service.http.exchange import Request, Response
from service.http.parsing import Problem
from service.jobs.fields import FieldError, UnknownField
from service.results.formats import LayoutError
from service.s3 import NoObject, S3Error
from service.scheduling.attempt_checks import WrongSecret
from service.scheduling.scheduler import NameTaken
from service.storage import store as storage

# Errors that handlers may raise, and the problem that clients get: (status, type). The first match counts.
ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownField, 422, "unknown-field"),
    (FieldError, 422, "invalid-field"),
    (messages.MessageError, 422, "invalid-field"),
    (LayoutError, 422, "invalid-field"),
    (UnknownClip, 404, "unknown-clip"),
    (FormatError, 422, "invalid-field"),
    (NotFetched, 422, "clip-not-fetched"),
    (NameReserved, 409, "name-reserved"),
    (probe.NotAClip, 422, "not-a-video"),
    (picture_png.NoPicture, 404, "unknown-picture"),
    (picture_png.Busy, 503, "busy"),
    (probe.Busy, 503, "busy"),
    (NameTaken, 409, "name-taken"),
    (WrongSecret, 403, "wrong-secret"),
    (storage.UnknownExperiment, 404, "unknown-experiment"),
    (storage.KeyReused, 422, "idempotency-key-reused"),
    (storage.Finished, 409, "already-finished"),
    (storage.Unfinished, 409, "unfinished"),
    (storage.ClipInUse, 409, "clip-in-use"),
    (storage.ClipGone, 422, "unknown-clip"),
    (storage.Stale, 409, "stale-attempt"),
    (storage.StoreFull, 507, "disk-full"),
    (storage.StoreError, 503, "storage-unavailable"),
    (NoObject, 410, "object-lost"),
    (S3Error, 503, "bucket-unavailable"),
)


def with_problem_responses(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """The handler, with every error of the layers below translated once, here at the border."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except tuple(kind for kind, *_ in ERRORS) as error:
            status, slug = next((status, slug) for kind, status, slug in ERRORS if isinstance(error, kind))
            headers = {"Retry-After": "1"} if status == 503 else {}
            raise Problem(status, slug, str(error), field=getattr(error, "field", None) or None,
                          headers=headers) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise Problem(507, "disk-full", "no space left to keep the bytes; nothing was kept") from error

    return answer


def refuse_fields(request: Request, why: str) -> None:
    """Raises Problem 422 where a request without fields has some."""
    if given := request.document():
        raise Problem(422, "unknown-field", f"{why}; an empty body or {{}} was expected", field=next(iter(given)))


def integer_of(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A query parameter. Raises Problem 400."""
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise Problem(400, "invalid-parameter", f"{name}: expected an integer from {low} to {high}, got {text[:60]!r}",
                      field=name)
    return int(text)
