// Workers and what runs where; every unfinished run with its owner and what happens to it next; what was refused.

import * as api from "./api.js";
import { badge, button, doing, h, number, progress, replace, time, values } from "./dom.js";
import { Table } from "./table.js";

export async function show(place, parameters, view) {
  view.title("Workers");
  view.source([api.curl("workers"), api.curl("conservation")]);
  const cards = h("div", { class: "cards" });
  const waiting = new Table({ caption: "Unfinished runs", columns: UNFINISHED, file: "unfinished.csv",
    empty: "Nothing waits and nothing runs." });
  const refused = new Table({ caption: "Refused results", columns: REFUSED, file: "refused.csv",
    empty: "No late result was refused." });
  const total = h("p", { class: "lead" });
  const saved = (table) => h("p", { class: "tools" }, h("span", { class: "grow" }), button("CSV", () => table.saveCsv(),
    { title: "These rows as a CSV file" }));
  replace(place, h("h1", {}, "Workers"), cards, h("h2", {}, "What waits, and what happens next"), total,
    waiting.element, saved(waiting), h("h2", {}, "Refused results"), refused.element, saved(refused));

  async function read() {
    const [found, kept] = await Promise.all([api.get("workers", { signal: view.signal }),
      api.get("conservation", { signal: view.signal })]);
    view.calm();
    replace(cards, found.workers.length ? found.workers.map(card)
      : h("p", { class: "empty" }, "No worker has registered. Start one: python worker.py --orchestrator URL"));
    const shown = kept.unfinished.length < kept.unfinished_total ? `, the oldest ${kept.unfinished.length} shown` : "";
    replace(total, `${kept.accepted} runs accepted = ${["queued", "dispatched", "running", "completed", "failed",
      "cancelled"].map((state) => `${kept[state]} ${state}`).join(" + ")}${shown}.`);
    waiting.show(kept.unfinished);
    refused.show(kept.refused);
  }
  await read();
  api.poll(2000, view.signal, read, view.trouble);
}

const opened = new Set(); // workers whose card says all

function card(worker) {
  const about = [["codecs", values(worker.codecs)], ["version", worker.version], ["address", worker.url]];
  const now = [`${worker.free} of ${worker.slots} slots free`, worker.device, worker.threads && `${worker.threads} threads`,
    `heard ${number(worker.heard_s_ago, 1)} s ago`].filter(Boolean).join(" · ");
  return h("section", { class: `card ${/^\w+$/.test(worker.state) ? worker.state : ""}` },
    h("h3", {}, worker.name, " ", badge(worker.state)),
    worker.trouble && h("p", { class: "why" }, worker.trouble),
    h("div", { class: "hint" }, now),
    h("details", { open: opened.has(worker.name), on: { toggle: (event) => {
      if (event.target.open) opened.add(worker.name);
      else opened.delete(worker.name);
    } } }, h("summary", {}, "about it"), h("dl", {}, about.filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]))),
    h("ul", { class: "runs" }, worker.running.map((run) => h("li", {}, h("a", { href: `#/experiment/${run.run}`,
      "data-focus": run.run }, run.run), ` attempt ${run.attempt}`, progress(run.fraction, doing(run)),
    h("span", { class: "why" }, `lease ${number(run.lease_s_left, 0)} s`)))));
}

const UNFINISHED = [
  { name: "run", value: (row) => row.run, cell: (row) => h("a", { href: `#/experiment/${row.run}`, class: "id",
    "data-focus": row.run }, row.run) },
  { name: "state", value: (row) => row.status, cell: (row) => badge(row.status) },
  { name: "owner", value: (row) => row.owner },
  { name: "attempt", number: true, value: (row) => row.attempt },
  { name: "why", value: (row) => row.why },
  { name: "next", value: (row) => row.next_action },
  { name: "at", value: (row) => row.next_action_at, cell: (row) => time(row.next_action_at) },
  { name: "since", value: (row) => row.since, cell: (row) => time(row.since) },
];

const REFUSED = [
  { name: "at", value: (row) => row.at, cell: (row) => time(row.at) },
  { name: "run", value: (row) => row.run, cell: (row) => h("a", { href: `#/experiment/${row.run}`, class: "id" }, row.run) },
  { name: "attempt", number: true, value: (row) => row.attempt },
  { name: "what", value: (row) => row.what },
  { name: "why", value: (row) => row.reason },
];
