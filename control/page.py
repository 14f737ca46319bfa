"""The page at GET /: the experiments and where each is, for a browser, without scripts."""

from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Neural video codec</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; font-family: system-ui, sans-serif }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem }
tr + tr { border-top: 1px solid #8884 } td.number { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body>
"""
_COLUMNS = ("experiment", "label", "clip", "codec", "status", "Mbit/s", "PSNR dB", "accepted")


def render(experiments: list[dict[str, Any]], counts: dict[str, int], more: str | None) -> str:
    """HTML of a list of summaries (documents.summary); `more` is the address of the next page."""
    states = " · ".join(f"{count} {state}" for state, count in counts.items())
    rows = "".join(_row(experiment) for experiment in experiments)
    table = f"<table><thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in _COLUMNS)}</tr></thead>" \
            f"<tbody>{rows}</tbody></table>" if experiments else "<p>No experiments yet. Submit one: " \
            "<code>curl -X POST localhost:8081/experiment -d '{}'</code></p>"
    links = " · ".join(f'<a href="{address}">{name}</a>' for name, address in (
        ("conservation", "conservation"), ("workers", "workers"), ("clips", "clips"), ("API", "openapi.json")))
    following = f'<p><a href="{escape(more)}">older experiments</a></p>' if more else ""
    return f"{_HEAD}<h1>Neural video codec</h1><p>{escape(states)}</p><p>{links}</p>{table}{following}</body></html>\n"


def _row(experiment: dict[str, Any]) -> str:
    metrics = experiment["metrics"] or {}
    name, address = escape(experiment["experiment_id"]), escape(experiment["url"].lstrip("/"))
    cells = [f'<td><a href="{address}">{name}</a></td>']
    cells += [f"<td>{escape(str(experiment[field]))}</td>" for field in ("label", "clip", "codec", "status")]
    for field, digits in (("bitrate_mbps", 3), ("psnr_db", 2)):
        value = metrics.get(field)
        text = f"{value:.{digits}f}" if isinstance(value, int | float) else ""
        cells.append(f'<td class="number">{text}</td>')
    cells.append(f"<td>{escape(experiment['accepted'])}</td>")
    return f"<tr>{''.join(cells)}</tr>"
