"""A sweep's curves in other forms: plots, CompressAI's layout, and BD-rates against other programs' result files."""

from measures.bd_rate import METHODS
from service.http.exchange import Request, Response
from service.http.parsing import Problem
from service.http.routes import json_body
from service.jobs.states import TERMINAL
from service.results.bd_rate_matrix import MAX_CURVES, PERCEPTUAL, QUALITIES, RATES, Document, matrix, measured
from service.results.curves import curves_of
from service.results.formats import MAX_ANCHORS, LayoutError, beside, compressai, read_anchor
from service.results.plots import FORMS, NoPlots, Plots, PlotsBusy
from service.runtime.version import VERSION
from service.storage.records import GridRun
from service.storage.store import Store

BODY = json_body(16 << 20)      # DCVC's anchors are of 0.7 MB
PLOTS = (*QUALITIES, *PERCEPTUAL)


class Wrong(LayoutError):
    """A field of the request that is not as expected."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field


class Results:
    """These endpoints; all of them only read."""

    def __init__(self, store: Store, plots: Plots) -> None:
        self.store, self.plots = store, plots

    def get_plot(self, request: Request) -> Response:
        quality, _, form = request.params["name"].rpartition(".")
        if quality not in PLOTS or form not in FORMS:
            raise Problem(404, "unknown-plot", f"no plot {request.params['name'][:60]!r}; there are "
                          f"{', '.join(PLOTS)}, each as {' or '.join('.' + each for each in FORMS)}")
        rate = request.query.get("rate", RATES[0])
        if rate not in RATES:
            raise Problem(400, "invalid-parameter", f"rate: expected {' or '.join(RATES)}, got {rate[:60]!r}",
                          field="rate")
        clip = request.query.get("clip")
        curves, runs = self._curves(request)
        curves = [curve for curve in curves if clip in (None, curve["clip"])]
        if clip is not None and not curves:
            raise Problem(404, "unknown-curve", f"clip: the experiment has no clip {clip[:100]!r}", field="clip")
        ended = sum(run.state in TERMINAL for run in runs)
        try:
            drawn = self.plots.draw((request.params["id"], ended, clip), curves, quality, rate, form)
        except NoPlots as error:
            raise Problem(501, "plots-unavailable", str(error)) from error
        except PlotsBusy as error:
            raise Problem(503, "busy", str(error), headers={"Retry-After": "1"}) from error
        return Response(200, drawn, {"Content-Type": FORMS[form]}, etag=True)

    def get_compressai(self, request: Request) -> Response:
        curves, runs = self._curves(request)
        names = sorted({curve["curve"] for curve in curves})
        name, clip = request.query.get("curve", names[0] if len(names) == 1 else None), request.query.get("clip")
        if name is None:
            raise Problem(400, "invalid-parameter", f"curve: expected one of {', '.join(names)}; CompressAI has one "
                          "file a curve", field="curve")
        clips = list(dict.fromkeys(curve["clip"] for curve in curves))
        of = clip or (clips[0] if len(clips) == 1 else f"mean of {', '.join(clips)}")
        try:
            made = compressai(curves, name, clip, f"{request.params['id']}: {of}. nvc {VERSION}",
                              {run.id: run.figures or {} for run in runs})
        except KeyError as error:
            raise Problem(404, "unknown-curve", f"no curve {name[:100]!r} of clip {(clip or 'any')[:100]!r}; there are "
                          f"{', '.join(error.args[0])} of {', '.join(error.args[1])}", field="curve") from error
        return Response(200, made, etag=True)

    def post_bd_rate(self, request: Request) -> Response:
        given = request.document()
        files, method, wanted = given.get("anchors", []), given.get("method", METHODS[0]), given.get("curves")
        if unknown := set(given) - {"anchors", "method", "curves"}:
            raise Wrong(min(unknown), "no such field; known are anchors, curves, method")
        if not isinstance(files, list) or len(files) > MAX_ANCHORS:
            raise Wrong("anchors", f'expected at most {MAX_ANCHORS} files as [{{"name", "document"}}, …]')
        if method not in METHODS:
            raise Wrong("method", f"expected one of {', '.join(METHODS)}, got {str(method)[:40]!r}")
        curves = self._curves(request)[0]
        names = {curve["curve"] for curve in curves}
        if wanted is not None and (not isinstance(wanted, list) or not 0 < len(wanted) <= MAX_CURVES or any(
                not isinstance(name, str) or name not in names for name in wanted)):
            raise Wrong("curves", f"expected 1 to {MAX_CURVES} of {', '.join(sorted(names)[:40])}")
        curves = [curve for curve in curves if wanted is None or curve["curve"] in wanted]
        anchors: list[Document] = []
        for file in files:
            if not isinstance(file, dict) or set(file) != {"name", "document"} or not isinstance(file["name"], str):
                raise Wrong("anchors", 'expected {"name", "document"} for each file: its name, and what it holds')
            anchors += read_anchor(file["name"][-100:], file["document"])
        rows, unmatched = beside(curves, anchors) if anchors else (curves, [])
        rate = "bpp" if anchors and all(point.get("bpp") is not None for row in rows for point in row["points"]) \
            else RATES[0]
        return Response(200, {"curves": rows, "bd_rate": matrix(rows, rate, measured(rows), method),
                              "unmatched": unmatched})

    def _curves(self, request: Request) -> tuple[list[Document], list[GridRun]]:
        """The curves of an experiment, or of one run of it, and the runs. Raises UnknownExperiment."""
        experiment = self.store.experiment(request.params["id"])
        runs = experiment.grid or self.store.grid(request.params["id"])
        return curves_of(experiment.document, runs), runs
