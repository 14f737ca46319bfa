"""The JSON that clients read: the status of an experiment, lists, what is conserved. From records, without I/O."""

from collections.abc import Callable, Sequence
from typing import Any

from service.jobs.fields import AIMS, GRID, is_grid
from service.jobs.states import TERMINAL, UNFINISHED, State, timestamp
from service.storage.records import Conservation, Experiment, GridRun, Run, RunRecord

# What a worker's result may not say, because it is the orchestrator's to say.
OWN = ("experiment_id", "status", "label", "settings", "attempts", "timeline", "artifacts", "error", "progress", "runs",
       "waits_for", "removed_artifacts", "run", "clone_of", "rerun", "segments")
JOIN_BEGINS = 0.95      # of a clip that is cut: the share of its progress that is its segments'


def status(experiment: Experiment, progress: Callable[[str], dict[str, Any] | None],
           why: Callable[[str], tuple[str, str, float | None]]) -> dict[str, Any]:
    """The whole document of an experiment with one run, or of one run of a grid. `progress` gives the newest of a run
    at work, by its id; `why` is View.why."""
    record = experiment.runs[0]
    head: dict[str, Any] = {"experiment_id": experiment.id}
    if record.run.id != experiment.id:
        head["run"] = record.run.id
    waits = {}
    if record.state is State.QUEUED:    # no times: they would make another document of it at every look
        reason, next_step, _ = _why(record.run, why)
        waits = {"waits_for": {"reason": reason, "next": next_step}}
    return head | {"status": record.state} | waits | _clone(experiment) | _run(experiment, record, progress)


def grid(experiment: Experiment, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """The whole document of a grid, but for its curves and BD-rates (curves.analyse), and for what each run measured
    picture by picture, which each run's own document has."""
    return {
        "experiment_id": experiment.id, "status": experiment.state, "label": experiment.label,
        **_clone(experiment), "settings": experiment.document, "counts": counts(experiment),
        "runs": [_grid_run(run, progress) for run in experiment.grid],
        "timeline": {"accepted": timestamp(experiment.accepted_s),
                     "finished": timestamp(experiment.finished_s)},
    }


def counts(experiment: Experiment) -> dict[str, int]:
    """Runs by state, and in total."""
    return {"total": sum(experiment.counts.values()), **{str(state): n for state, n in experiment.counts.items()}}


def repetition(of: str, mine: Sequence[GridRun], original: Sequence[GridRun]) -> dict[str, Any]:
    """Whether the runs of a repetition gave what those of its original `of` gave, to the last bit. "matches" is null
    as long as a run is unfinished, unless one differs already, and where no pair of runs has completed."""
    differences, compared, waiting = [], 0, 0
    for run, before in zip(mine, original, strict=False):
        if run.state not in TERMINAL or before.state not in TERMINAL:
            waiting += 1
            continue
        compared += 1
        if run.state is not before.state:
            what = ["status"]
        else:
            what = [words for name, words in (("stream_sha256", "stream"), ("decoded_sha256", "pictures"))
                    if (run.figures or {}).get(name) != (before.figures or {}).get(name)]
        if what:
            differences.append({"run": run.id, "of": before.id, "what": what})
    same = compared > 0 and any(run.state is State.COMPLETED for run in mine)
    return {"of": of, "matches": False if differences else None if waiting or not same else True,
            "compared": compared, "waiting": waiting, "differences": differences}


def _clone(experiment: Experiment) -> dict[str, Any]:
    origin = (experiment.origin or {}).get("clone_of")
    return {"clone_of": origin} if origin else {}


def _grid_run(run: GridRun, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.id, "status": run.state, "setting": {name: run.settings.get(name) for name in GRID},
        "attempts": run.attempt, "worker": run.worker, "metrics": run.figures, "url": f"/experiment/{run.id}/status",
    }
    return row | _error_or_progress(run, progress)


def _run(experiment: Experiment, record: RunRecord, progress: Callable[[str], dict[str, Any] | None]
         ) -> dict[str, Any]:
    run = record.run
    found = {name: part for name, part in (record.result or {}).items() if name not in OWN}
    artifacts = {name: {"url": artifact_url(run.id, name), **about} for name, about in record.artifacts.items()}
    for part, field, stem in (("encoding_result", "compressed_data", "stream."),
                              ("decoding_result", "reconstructed_video", "reconstruction.")):
        if isinstance(found.get(part), dict):
            address = next((about["url"] for name, about in artifacts.items() if name.startswith(stem)), None)
            found[part] = {field: address, **{name: value for name, value in found[part].items() if name != field}}
    found["clip"] = {**run.clip, **(found.get("clip") or {})}
    found["clip"].pop("url", None)
    last = record.attempts[-1] if record.attempts else None
    document = {
        **{name: part for name, part in found.items() if name != "provenance"}, "settings": run.settings,
        **({"provenance": found["provenance"]} if "provenance" in found else {}), "artifacts": artifacts,
        "attempts": [{"attempt": attempt.attempt, "worker": attempt.worker,
                      "dispatched": timestamp(attempt.dispatched_s), "started": timestamp(attempt.started_s),
                      "ended": timestamp(attempt.ended_s), "outcome": attempt.outcome, "detail": attempt.detail}
                     for attempt in record.attempts],
        "timeline": {"accepted": timestamp(experiment.accepted_s),
                     "dispatched": timestamp(last.dispatched_s) if last else None,
                     "started": timestamp(last.started_s) if last else None,
                     "finished": timestamp(run.finished_s)},
    }
    if record.removed:
        document["removed_artifacts"] = record.removed
    if record.error is not None:
        document["error"] = record.error
    elif (now := _progress(record, progress)) is not None:
        document["progress"] = now
    if record.segments:
        measured = {row["index"]: row for row in (record.result or {}).get("segments", ())}
        document["segments"] = [_segment(index, segment, measured.get(index, {}), progress)
                                for index, segment in enumerate(record.segments)]
    return document


def _progress(record: RunRecord, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Of a run at work; of a clip that is cut, that of its segments, then of their join, as one."""
    run = record.run
    now = progress(run.id) if run.state in (State.DISPATCHED, State.RUNNING) else None
    if not record.segments or run.state in TERMINAL:
        return now
    if now is not None and now.get("fraction") is not None:
        return now | {"fraction": round(JOIN_BEGINS + (1 - JOIN_BEGINS) * now["fraction"], 4)}
    fractions = [1.0 if segment.state is State.COMPLETED else (progress(segment.id) or {}).get("fraction") or 0.0
                 for segment in record.segments]
    done = sum(segment.state is State.COMPLETED for segment in record.segments)
    return {"phase": f"segments, {done} of {len(fractions)} done",
            "fraction": round(JOIN_BEGINS * sum(fractions) / len(fractions), 4)}


def _segment(index: int, segment: GridRun, measured: dict[str, Any],
             progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    row = {"index": index, "run": segment.id, "status": segment.state, "attempts": segment.attempt,
           "worker": segment.worker, **measured}
    return row | _error_or_progress(segment, progress)


def _error_or_progress(run: GridRun, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """Why it failed, or how far it is: of one among many, as far as there is either."""
    if run.error is not None:
        return {"error": run.error}
    now = progress(run.id) if run.state in (State.DISPATCHED, State.RUNNING) else None
    return {} if now is None else {"progress": now}


def _why(run: Run, why: Callable[[str], tuple[str, str, float | None]]) -> tuple[str, str, float | None]:
    """Why an unfinished run waits, what happens next, and in how many seconds."""
    if run.waits:
        return (f"{run.waits} of its {run.settings['segments']} segments have not completed",
                "they are joined when all have", None)
    return why(run.id)


def summary(experiment: Experiment, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """One experiment in a list. Of a grid, what only a run has is null."""
    first = experiment.runs[0]
    alone = None if is_grid(experiment.document) else first
    made = {
        "experiment_id": experiment.id, "status": experiment.state, "label": experiment.label,
        "tags": experiment.document["tags"],
        **{name: experiment.document[name] for name in ("clip", "codec", "model", *AIMS, "structure", "effort")},
        "accepted": timestamp(experiment.accepted_s), "finished": timestamp(experiment.finished_s),
        "runs": counts(experiment), "attempts": alone and alone.run.attempt,
        "worker": alone.attempts[-1].worker if alone and alone.attempts else None,
        "metrics": alone and alone.metrics, "error": alone and alone.error,
        "url": f"/experiment/{experiment.id}/status",
    }
    if alone and first.state in (State.DISPATCHED, State.RUNNING) and (now := _progress(first, progress)) is not None:
        made["progress"] = now
    return made


def conservation(found: Conservation, why: Callable[[str], tuple[str, str, float | None]], now_s: float
                 ) -> dict[str, Any]:
    """Where everything is that was accepted. `why` is Overview.why; `now_s` in Unix seconds."""
    total = found.deleted + sum(found.counts.values())
    return {
        "accepted": found.accepted, "segments": found.segments, "sum": total, "holds": found.accepted == total,
        **{str(state): count for state, count in found.counts.items()},
        "deleted": found.deleted,
        "unfinished": [_waits(run, _why(run, why), now_s) | {
            "since": timestamp(None if attempt is None else attempt.started_s or attempt.dispatched_s)}
            for run, attempt in found.unfinished],
        "unfinished_total": sum(found.counts[state] for state in UNFINISHED),
        "refused": found.refused,
    }


def _waits(run: Run, why: tuple[str, str, float | None], now_s: float) -> dict[str, Any]:
    """Who has an unfinished run, what happens to it next, and when."""
    reason, action, in_s = why
    held = run.state in (State.DISPATCHED, State.RUNNING)
    return {
        "run": run.id, "experiment_id": run.experiment_id, "status": run.state, "attempt": run.attempt,
        "tries": run.tries, "owner": f"worker {run.worker}" if held else "orchestrator", "why": reason,
        "lease_s_left": round(in_s, 3) if held and in_s is not None else None, "next_action": action,
        "next_action_at": None if in_s is None else timestamp(now_s + in_s),
    }


def artifact_url(run_id: str, name: str) -> str:
    return f"/experiment/{run_id}/artifacts/{name}"
