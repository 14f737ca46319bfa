// The experiments, newest first, as they are now: a page of them at a time, read again every few seconds. Those that are
// marked are cancelled, run again, tagged, deleted or drawn in one plot together.

import * as api from "./api.js";
import { badge, button, choice, count, doing, h, nameOf, number, progress, replace, time, values } from "./dom.js";
import { Table } from "./table.js";

const STATES = ["queued", "dispatched", "running", "completed", "failed", "cancelled"];
const ENDED = ["completed", "failed", "cancelled"];
const ROWS = 100;

export async function show(place, parameters, view) {
  view.title("Experiments");
  const wanted = Object.fromEntries(["state", "tag", "search"].map((name) => [name, view.query.get(name) ?? ""]));
  const cursors = [view.query.get("cursor") ?? ""]; // where each page from the newest to this one begins
  const marked = new Map(); // id of an experiment to its row
  let waits = new Map();
  let following = null;

  const go = () => {
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    location.hash = `#/list${query.size ? `?${query}` : ""}`;
  };
  const filter = (name, words, placeholder, size) => {
    const field = h("input", { type: "search", value: wanted[name], placeholder, size,
      on: { change: () => { wanted[name] = field.value.trim(); go(); } } });
    return h("label", { class: "choice" }, h("span", {}, words), field);
  };
  const counts = h("p", { class: "counts", "aria-label": "Runs by state" });
  const actions = h("p", { class: "filters", hidden: true });
  const table = new Table({ caption: "Experiments", size: ROWS, columns: [mark(), ...columns(() => waits)],
    name: "experiments", file: "experiments.csv", sort: null, empty: "No experiments here. Submit one above, or with the line below." });
  const newer = button("Newer", () => { cursors.pop(); read().catch(view.trouble); });
  const older = button("Older", () => { cursors.push(following); read().catch(view.trouble); });
  replace(place, h("h1", {}, "Experiments"), counts,
    h("form", { class: "filters", on: { submit: (event) => event.preventDefault() } },
      filter("search", "Search", "clip, codec, label, id…", 24),
      choice("State", [["", "all"], ...STATES.map((state) => [state, state])], wanted.state,
        (state) => { wanted.state = state; go(); }),
      filter("tag", "Tag", "name or name:value", 16),
      h("span", { class: "grow" }), table.chooser(), button("CSV", () => table.saveCsv(), { title: "These rows as a CSV file" })),
    actions, table.element, h("p", { class: "turn" }, newer, older));

  function mark() {
    return { name: "", cell: (row) => h("input", { type: "checkbox", checked: marked.has(row.experiment_id),
      "aria-label": `Mark ${row.experiment_id}`, "data-focus": `mark ${row.experiment_id}`, on: { change: (event) => {
        if (event.target.checked) marked.set(row.experiment_id, row);
        else marked.delete(row.experiment_id);
        drawActions();
      } } }) };
  }

  function drawActions() {
    const ids = [...marked.keys()];
    const ended = ids.filter((id) => ENDED.includes(marked.get(id).status));
    const going = ids.filter((id) => !ended.includes(id));
    const each = (words, some, act, attributes) => button(`${words} (${some.length})`, () => together(some, act, words),
      { disabled: some.length === 0, ...attributes });
    const tag = h("input", { type: "text", size: 16, placeholder: "name:value", "aria-label": "Tag for those marked" });
    actions.hidden = ids.length === 0;
    replace(actions, h("span", { class: "hint" }, `${ids.length} marked`),
      h("a", { class: "button", href: `#/curves/${ids.join(",")}` }, "Curves in one plot"),
      each("Cancel", going, (id) => api.post(`experiment/${id}/cancel`)),
      each("Run again", ended, (id) => api.post(`experiment/${id}/rerun`)),
      tag, button("Set tag", () => {
        const [name, value = ""] = tag.value.split(":").map((part) => part.trim());
        if (name) together(ids, (id) => api.call(`experiment/${id}/tags`, { method: "PATCH", body: { [name]: value } }), "Set tag");
      }),
      each("Delete", ended, (id) => api.call(`experiment/${id}`, { method: "DELETE" }), { class: "danger" }),
      button("None", () => { marked.clear(); drawActions(); table.draw(); }, { class: "quiet" }));
  }

  // One after the other; what is refused stays marked, and the first refusal is shown.
  async function together(ids, act, words) {
    if (words === "Delete" && !confirm(`Delete ${ids.length} experiment${ids.length === 1 ? "" : "s"} and their files?`)) return;
    let trouble = null;
    for (const id of ids) {
      try {
        await act(id);
        marked.delete(id);
      } catch (error) {
        trouble ??= error;
      }
    }
    view.say(`${words}: ${ids.filter((id) => !marked.has(id)).length} of ${ids.length}`);
    drawActions();
    await read().catch(view.trouble);
    if (trouble) view.trouble(trouble);
  }

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
    for (const row of found.experiments) if (marked.has(row.experiment_id)) marked.set(row.experiment_id, row);
    table.show(found.experiments);
  }

  await read();
  api.poll(2000, view.signal, read, view.trouble);
}

function columns(waits) {
  const metric = (name, digits) => ({
    number: true, value: (row) => row.metrics?.[name], cell: (row) => number(row.metrics?.[name], digits),
  });
  const field = (name) => ({ name, value: (row) => values(row[name]), cell: (row) => h("span",
    { class: "values", title: values(row[name]) }, values(row[name])) });
  return [
    { name: "experiment", value: (row) => row.label || nameOf(row), cell: (row) => [
      h("a", { href: `#/experiment/${row.experiment_id}`, "data-focus": row.experiment_id, class: "name",
        title: row.label || nameOf(row) }, row.label || nameOf(row)), h("span", { class: "id more" }, row.experiment_id)] },
    { name: "id", value: (row) => row.experiment_id, hidden: true },
    { name: "state", value: (row) => row.status, cell: (row) => stateOf(row, waits().get(row.experiment_id)) },
    { ...field("clip") }, { ...field("codec") },
    { name: "target", value: aim, cell: (row) => h("span", { class: "values", title: aim(row) }, aim(row)) },
    { name: "Mbit/s", ...metric("bitrate_mbps", 3) }, { name: "PSNR dB", ...metric("psnr_db", 2) },
    { name: "worker", class: "worker", value: (row) => row.worker, cell: (row) => [row.worker ?? "", row.attempts > 1 &&
      h("span", { class: "why" }, `attempt ${row.attempts}`)] },
    { name: "accepted", value: (row) => row.accepted, cell: (row) => time(row.accepted) },
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
    if (ended < runs.total || runs.failed) {
      parts.push(progress(ended / runs.total, `${ended}/${runs.total}${runs.failed ? `, ${runs.failed} failed` : ""}`));
    } else parts.push(h("span", { class: "more" }, ` ${runs.total} runs`));
  } else if (row.progress) parts.push(progress(row.progress.fraction, doing(row.progress)));
  else if (waiting && row.status === "queued") parts.push(h("span", { class: "why" }, waiting.why));
  else if (row.error) parts.push(h("span", { class: "why" }, row.error.detail ?? row.error.type));
  return parts;
}
