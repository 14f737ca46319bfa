// The experiments, newest first, as they are now: a page of them at a time, read again every few seconds.

import * as api from "./api.js";
import { badge, button, choice, count, doing, h, number, progress, replace, time, values } from "./dom.js";
import { Table } from "./table.js";

const STATES = ["queued", "dispatched", "running", "completed", "failed", "cancelled"];
const ROWS = 100;

export async function show(place, parameters, view) {
  view.title("Experiments");
  const wanted = { state: view.query.get("state") ?? "", tag: view.query.get("tag") ?? "" };
  const cursors = [view.query.get("cursor") ?? ""]; // where each page from the newest to this one begins
  let waits = new Map();
  let following = null;

  const go = () => {
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    location.hash = `#/list${query.size ? `?${query}` : ""}`;
  };
  const counts = h("p", { class: "counts", "aria-label": "Runs by state" });
  const tag = h("input", { type: "search", value: wanted.tag, placeholder: "name or name:value", size: 18,
    on: { change: () => { wanted.tag = tag.value; go(); } } });
  const table = new Table({ caption: "Experiments", size: ROWS, columns: columns(() => waits), file: "experiments.csv",
    sort: undefined, empty: "No experiments here. Submit one above, or with the line below." });
  const newer = button("Newer", () => { cursors.pop(); read().catch(view.trouble); });
  const older = button("Older", () => { cursors.push(following); read().catch(view.trouble); });
  replace(place, h("h1", {}, "Experiments"), counts,
    h("form", { class: "filters", on: { submit: (event) => event.preventDefault() } },
      choice("State", [["", "all"], ...STATES.map((state) => [state, state])], wanted.state,
        (state) => { wanted.state = state; go(); }),
      h("label", { class: "choice" }, h("span", {}, "Tag"), tag),
      h("span", { class: "grow" }), button("CSV", () => table.saveCsv(), { title: "These rows as a CSV file" })),
    table.element, h("p", { class: "turn" }, newer, older));

  async function read() {
    const query = new URLSearchParams({ limit: ROWS });
    for (const [name, value] of Object.entries({ ...wanted, cursor: cursors.at(-1) })) if (value) query.set(name, value);
    const path = `experiments?${query}`;
    view.source([api.curl(path), api.curl("conservation")]);
    const [found, kept] = await Promise.all([
      api.get(path, { signal: view.signal }), api.get("conservation?limit=1000", { signal: view.signal })]);
    view.calm();
    waits = new Map(kept.unfinished.toReversed().map((run) => [run.experiment_id, run]));
    following = found.next_cursor;
    newer.disabled = cursors.length === 1;
    older.disabled = following === null;
    newer.hidden = older.hidden = newer.disabled && older.disabled;
    replace(counts, STATES.map((state) => h("a", { href: `#/list?state=${state}`, class: `count ${state}` },
      h("strong", {}, count(kept[state])), ` ${state}`)), h("span", { class: "total" },
      `${count(kept.accepted)} runs accepted${kept.holds ? "" : ", and the sum does not hold"}`));
    table.show(found.experiments);
  }

  await read();
  api.poll(2000, view.signal, read, view.trouble);
}

function columns(waits) {
  const metric = (name, digits) => ({
    number: true, sorts: false, value: (row) => row.metrics?.[name], cell: (row) => number(row.metrics?.[name], digits),
  });
  const field = (name) => ({ name, sorts: false, value: (row) => values(row[name]), cell: (row) => h("span",
    { class: "values", title: values(row[name]) }, values(row[name])) });
  return [
    { name: "experiment", sorts: false, value: (row) => row.experiment_id, cell: (row) => [
      h("a", { href: `#/experiment/${row.experiment_id}`, class: "id", "data-focus": row.experiment_id },
        row.experiment_id), row.label && h("span", { class: "label", title: row.label }, row.label)] },
    { name: "state", sorts: false, value: (row) => row.status, cell: (row) => stateOf(row, waits().get(row.experiment_id)) },
    { ...field("clip") }, { ...field("codec") },
    { name: "aim", sorts: false, value: aim, cell: (row) => h("span", { class: "values", title: aim(row) }, aim(row)) },
    { name: "Mbit/s", ...metric("bitrate_mbps", 3) }, { name: "PSNR dB", ...metric("psnr_db", 2) },
    { name: "worker", class: "worker", sorts: false, value: (row) => row.worker, cell: (row) => [row.worker ?? "", row.attempts > 1 &&
      h("span", { class: "why" }, `attempt ${row.attempts}`)] },
    { name: "accepted", sorts: false, value: (row) => row.accepted, cell: (row) => time(row.accepted) },
  ];
}

function aim(row) {
  if (row.bitrate_mbps !== null) return `${values(row.bitrate_mbps)} Mbit/s`;
  return row.psnr_db !== null ? `${values(row.psnr_db)} dB` : `quality ${values(row.quality)}`;
}

function stateOf(row, waiting) {
  const parts = [badge(row.status)];
  const { runs } = row;
  if (runs.total > 1) {
    const ended = runs.completed + runs.failed + runs.cancelled;
    parts.push(progress(ended / runs.total, `${ended}/${runs.total}${runs.failed ? `, ${runs.failed} failed` : ""}`));
  } else if (row.progress) parts.push(progress(row.progress.fraction, doing(row.progress)));
  else if (waiting && row.status === "queued") parts.push(h("span", { class: "why" }, waiting.why));
  else if (row.error) parts.push(h("span", { class: "why" }, row.error.detail ?? row.error.type));
  return parts;
}
