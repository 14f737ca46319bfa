"""The JSON that clients read: the status of an experiment, lists, what is conserved. From records, without I/O."""

from collections.abc import Callable
from typing import Any

import jobs
from control.records import Conservation, Experiment, Run, RunRecord
from jobs import State

# What a worker's result may not say, because it is the orchestrator's to say.
OWN = ("experiment_id", "status", "label", "settings", "attempts", "timeline", "artifacts", "error", "progress", "runs")


def status(experiment: Experiment, progress: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """The whole document of one experiment. `progress` gives the newest of a run at work, by its id."""
    head: dict[str, Any] = {"experiment_id": experiment.id, "status": experiment.state}
    if len(experiment.runs) == 1:
        return head | _run(experiment, experiment.runs[0], progress)
    return head | {
        "label": experiment.label, "settings": experiment.document,
        "runs": [{"run": record.run.id, "status": record.run.state, **_run(experiment, record, progress)}
                 for record in experiment.runs],
        "timeline": {"accepted": jobs.timestamp(experiment.accepted_s),
                     "finished": jobs.timestamp(experiment.finished_s)},
    }


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
                      "dispatched": jobs.timestamp(attempt.dispatched_s), "started": jobs.timestamp(attempt.started_s),
                      "ended": jobs.timestamp(attempt.ended_s), "outcome": attempt.outcome, "detail": attempt.detail}
                     for attempt in record.attempts],
        "timeline": {"accepted": jobs.timestamp(experiment.accepted_s),
                     "dispatched": jobs.timestamp(last.dispatched_s) if last else None,
                     "started": jobs.timestamp(last.started_s) if last else None,
                     "finished": jobs.timestamp(run.finished_s)},
    }
    if record.error is not None:
        document["error"] = record.error
    elif run.state in (State.DISPATCHED, State.RUNNING) and (now := progress(run.id)) is not None:
        document["progress"] = now
    return document


def summary(experiment: Experiment) -> dict[str, Any]:
    """One experiment in a list."""
    first = experiment.runs[0]
    return {
        "experiment_id": experiment.id, "status": experiment.state, "label": experiment.label,
        "tags": experiment.document["tags"],
        **{name: experiment.document[name] for name in ("clip", "codec", "model", *jobs.AIMS, "structure", "effort")},
        "accepted": jobs.timestamp(experiment.accepted_s), "finished": jobs.timestamp(experiment.finished_s),
        "attempts": first.run.attempt, "worker": first.attempts[-1].worker if first.attempts else None,
        "metrics": first.metrics, "error": first.error, "url": f"/experiment/{experiment.id}/status",
    }


def conservation(found: Conservation, why: Callable[[str], tuple[str, str, float | None]], now_s: float
                 ) -> dict[str, Any]:
    """Where everything is that was accepted. `why` is Conductor.why; `now_s` in Unix seconds."""
    total = sum(found.counts.values())
    return {
        "accepted": found.accepted, "sum": total, "holds": found.accepted == total,
        **{str(state): count for state, count in found.counts.items()},
        "unfinished": [_waits(run, why(run.id), now_s) | {
            "since": jobs.timestamp(None if attempt is None else attempt.started_s or attempt.dispatched_s)}
            for run, attempt in found.unfinished],
        "unfinished_total": sum(found.counts[state] for state in jobs.UNFINISHED),
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
        "next_action_at": None if in_s is None else jobs.timestamp(now_s + in_s),
    }


def artifact_url(run_id: str, name: str) -> str:
    return f"/experiment/{run_id}/artifacts/{name}"
