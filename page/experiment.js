// One experiment or one run of a grid: how far it is, what was measured, and what can be done with it.

import * as api from "./api.js";
import { badge, button, bytes, count, doing, h, nameOf, number, parts, progress, replace, seconds, time, values } from "./dom.js";
import { plot } from "./plot.js";
import { Sweep } from "./sweep.js";
import { Table } from "./table.js";

const ENDED = ["completed", "failed", "cancelled"];

export async function show(place, [id], view) {
  const path = `experiment/${encodeURIComponent(id)}/status`;
  view.source([api.curl(path), api.curl(`experiment/${id}/events`)]);
  const head = h("div", { class: "head" });
  const body = h("div", {});
  replace(place, head, body);
  let part = null;
  let before = "";
  let newest = null;
  let waits = new Map();
  api.poll(2000, view.signal, async () => { // why it waits changes by itself, and is no part of the status
    if (!newest || ENDED.includes(newest.status)) return;
    const kept = await api.get("conservation?limit=1000", { signal: view.signal });
    waits = new Map(kept.unfinished.map((run) => [run.run, run]));
    if (newest && !ENDED.includes(newest.status)) part.show(newest, waits);
  }, view.trouble);
  await api.follow(path, {
    signal: view.signal, trouble: view.trouble, ended: (found) => ENDED.includes(found.status) && !pending(found),
    pause_ms: id.includes(".") ? 400 : 1000,
    show: (found) => {
      view.calm();
      if (before && before !== found.status) view.say(`${id} is ${found.status}`);
      before = found.status;
      view.title(found.label || found.settings.label || nameOf(found));
      part ??= found.runs ? new Sweep(body, found, view) : new Single(body, found);
      drawHead(head, found, view);
      newest = found;
      part.show(found, waits);
    },
  });
}

// A repetition is compared with its original when both have ended.
function pending(found) {
  return found.rerun?.matches === null && found.rerun.waiting > 0;
}

function drawHead(head, found, view) {
  const focus = document.activeElement?.dataset?.focus;
  const id = found.run ?? found.experiment_id;
  const ended = ENDED.includes(found.status);
  const act = (what, then) => () => api.post(`experiment/${id}/${what}`).then(then).catch(view.trouble);
  replace(head,
    h("h1", {}, found.label || found.settings.label || nameOf(found), " ", badge(found.status)),
    h("p", { class: "lead" }, (found.label || found.settings.label) && `${nameOf(found)} `, h("span", { class: "id more" }, id)),
    h("p", { class: "tags" }, Object.entries(found.settings.tags ?? {}).map(([name, value]) =>
      h("a", { class: "tag", href: `#/list?${new URLSearchParams({ tag: `${name}:${value}` })}` }, `${name}: ${value}`))),
    origin(found),
    h("p", { class: "actions" },
      !ended && !found.run && button("Cancel", act("cancel", () => view.say("cancelled")), { class: "danger",
        "data-focus": "cancel" }),
      ended && button("Run again", act("rerun", (made) => { location.hash = `#/experiment/${made.experiment_id}`; }),
        { title: "The same again, and whether every hash matches", "data-focus": "rerun" }),
      reconstructed(found) && h("a", { class: "button", href: `#/compare/${id}/source`, "data-focus": "play" },
        "Play beside the source"),
      h("a", { class: "button", href: `#/submit?${new URLSearchParams({ clone: id })}`, "data-focus": "clone" },
        "Clone with changes"),
      found.run && h("a", { class: "button", href: `#/experiment/${found.experiment_id}` }, "The whole experiment"),
      button("JSON", () => api.save(`${id}.json`, new Blob([JSON.stringify(found, null, 1)],
        { type: "application/json" })), { class: "quiet", "data-focus": "json" })));
  if (focus) head.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
}

function reconstructed(found) {
  return Object.keys(found.artifacts ?? {}).some((name) => name.startsWith("reconstruction."));
}

function origin(found) {
  if (found.rerun) {
    const { of, matches, compared, waiting, differences } = found.rerun;
    const words = matches === true ? "every hash matches" : matches === false
      ? `${differences.length} of ${compared} runs differ: ${differences.slice(0, 5).map((each) =>
        `${each.run} (${each.what.join(", ")})`).join("; ")}` : `${waiting} runs still to compare`;
    return h("p", { class: matches === false ? "verdict bad" : matches ? "verdict good" : "verdict" },
      "The same as ", h("a", { href: `#/experiment/${of}` }, of), `: ${words}.`);
  }
  return found.clone_of && h("p", { class: "verdict" }, "Cloned from ", h("a", { href: `#/experiment/${found.clone_of}` },
    found.clone_of), ".");
}

// --- one run

class Single {
  constructor(place, found) {
    this.id = found.run ?? found.experiment_id;
    this.now = h("div", { class: "now" });
    this.tiles = h("div", { class: "tiles" });
    this.parts = h("div", { class: "cards" });
    this.frames = h("div", {});
    this.attempts = new Table({ caption: "Attempts", columns: ATTEMPTS, sort: undefined, file: `${this.id}-attempts.csv`,
      empty: "No worker has been given this run yet." });
    this.artifacts = h("div", {});
    this.facts = h("div", { class: "facts" });
    this.segments = new Table({ caption: "Segments", size: 64, sort: { by: "segment", down: false }, columns: SEGMENTS });
    this.cut = h("div", { hidden: true }, h("h2", {}, "Segments"), this.segments.element);
    replace(place, this.now, this.tiles, this.parts, this.frames, this.cut, h("h2", {}, "Attempts"), this.attempts.element, this.artifacts,
      this.facts);
  }

  show(found, waits) {
    const waiting = waits.get(this.id);
    replace(this.now, found.progress && !ENDED.includes(found.status) && progress(found.progress.fraction, doing(found.progress)),
      waiting && !found.error && h("p", { class: "why" }, `${waiting.why}; next: ${waiting.next_action}`),
      found.error && h("p", { class: "verdict bad" }, h("strong", {}, found.error.type), ` ${found.error.detail ?? ""}`));
    replace(this.tiles, found.metrics && tiles(found));
    const [encoded, decoded] = [found.encoding_result?.details, found.decoding_result?.details];
    replace(this.parts, parts("Bits by part", encoded?.bits, (bits) => `${count(Math.round(bits))} bits`),
      parts("Encoding time by part", encoded?.seconds, seconds), parts("Decoding time by part", decoded?.seconds, seconds));
    this.parts.hidden = !this.parts.firstChild;
    if (found.frames?.length && !this.frames.firstChild) this.drawFrames(found);
    this.cut.hidden = !found.segments;
    if (found.segments) this.segments.show(found.segments);
    this.attempts.show(found.attempts);
    const artifacts = Object.entries(found.artifacts ?? {});
    replace(this.artifacts, artifacts.length > 0 && [h("h2", {}, "Files"), h("ul", { class: "files" },
      artifacts.map(([name, about]) => h("li", {}, button(name, () => api.download(about.url, `${this.id}-${name}`),
        { class: "link" }), ` ${bytes(about.bytes)} `, h("code", { title: "SHA-256" }, about.sha256.slice(0, 16)))))]);
    replace(this.facts, facts(found));
  }

  drawFrames(found) {
    const { frames } = found;
    const kept = reconstructed(found);
    const href = (frame) => kept ? `#/compare/${this.id}/source?frame=${frame.index}` : null;
    const words = (frame) => `picture ${frame.index}, ${frame.type}: ${number(frame.psnr_db)} dB, ` +
      `${(8 * frame.bytes).toLocaleString("en")} bits`;
    const points = (some, y) => some.map((frame) => ({ x: frame.index, y: y(frame), words: words(frame), href: href(frame) }));
    const quality = frames.filter((frame) => typeof frame.psnr_db === "number");
    const types = ["I", "P", "B"].filter((type) => frames.some((frame) => frame.type === type));
    const worst = new Table({ caption: "Worst pictures", size: 10, file: `${this.id}-frames.csv`,
      sort: { by: "PSNR dB", down: false }, columns: [
        { name: "picture", number: true, value: (frame) => frame.index, cell: (frame) => kept
          ? h("a", { href: href(frame) }, frame.index) : frame.index },
        { name: "type", value: (frame) => frame.type },
        { name: "bytes", number: true, value: (frame) => frame.bytes },
        { name: "PSNR dB", number: true, value: (frame) => frame.psnr_db, cell: (frame) => number(frame.psnr_db) },
        { name: "PSNR-Y dB", number: true, value: (frame) => frame.psnr_y, cell: (frame) => number(frame.psnr_y) },
        { name: "SSIM", number: true, value: (frame) => frame.ssim, cell: (frame) => number(frame.ssim, 4) },
        { name: "MS-SSIM", number: true, value: (frame) => frame.ms_ssim, cell: (frame) => number(frame.ms_ssim, 4) },
        ...["vmaf", "vmaf_neg", "xpsnr"].filter((name) => frames.some((frame) => name in frame)).map((name) => ({
          name: name.replace("_", "-").toUpperCase(), number: true, value: (frame) => frame[name],
          cell: (frame) => number(frame[name]) })),
      ] });
    const xAxis = { label: "picture", whole: true };
    replace(this.frames, h("h2", {}, "Picture by picture"),
      plot({ title: "PSNR of each picture", file: `${this.id}-psnr`, height: 230, x: xAxis, y: { label: "PSNR, dB" },
        series: [{ name: "PSNR", points: points(quality, (frame) => frame.psnr_db) }] }),
      plot({ title: "Bits of each picture, by type", file: `${this.id}-bits`, height: 230, x: xAxis,
        y: { label: "bits", zero: true }, series: types.map((type) => ({ name: type, kind: "bars",
          colour: { I: 3, P: 0, B: 1 }[type], points: points(frames.filter((frame) => frame.type === type),
            (frame) => 8 * frame.bytes) })) }),
      h("h2", {}, "Worst pictures"), worst.element,
      h("p", { class: "tools" }, kept && h("a", { class: "button", href: `#/compare/${this.id}/source?frame=${
        quality.length ? quality.reduce((a, b) => (b.psnr_db < a.psnr_db ? b : a)).index : 0}` },
      "The worst picture beside the source"), button("CSV", () => worst.saveCsv(), { title: "All pictures as a CSV file" })));
    worst.show(frames);
  }
}

const ATTEMPTS = [
  { name: "attempt", number: true, value: (row) => row.attempt },
  { name: "worker", value: (row) => row.worker },
  { name: "dispatched", value: (row) => row.dispatched, cell: (row) => time(row.dispatched) },
  { name: "started", value: (row) => row.started, cell: (row) => time(row.started) },
  { name: "ended", value: (row) => row.ended, cell: (row) => time(row.ended) },
  { name: "outcome", value: (row) => row.outcome, cell: (row) => row.outcome ?? "at work" },
  { name: "detail", value: (row) => row.detail, cell: (row) => h("span", { class: "why" }, row.detail ?? "") },
];

const SEGMENTS = [
  { name: "segment", number: true, value: (row) => row.index, cell: (row) => h("a", { href: `#/experiment/${row.run}`,
    "data-focus": row.run }, row.index) },
  { name: "status", value: (row) => row.status, cell: (row) => row.progress
    ? progress(row.progress.fraction, doing(row.progress)) : badge(row.status) },
  { name: "worker", value: (row) => row.worker },
  { name: "attempts", number: true, value: (row) => row.attempts },
  { name: "first picture", number: true, value: (row) => row.first },
  { name: "pictures", number: true, value: (row) => row.pictures },
  { name: "bytes", number: true, value: (row) => row.bytes },
  { name: "encoding", number: true, value: (row) => row.encode_s, cell: (row) => row.encode_s === undefined ? ""
    : seconds(row.encode_s) },
];

function tiles(found) {
  const { metrics, encoding_result: encoded = {}, decoding_result: decoded = {} } = found;
  const quality = decoded.quality_metrics ?? {};
  return [
    ["Rate", `${number(metrics.bitrate_mbps, 3)} Mbit/s`, `${number(metrics.bpp, 4)} bits a pixel`],
    ["PSNR 6:1:1", `${number(metrics.psnr_db)} dB`, `Y ${number(quality.psnr_y)} · U ${number(quality.psnr_u)} · V ${
      number(quality.psnr_v)}`],
    ["SSIM", number(metrics.ssim, 4), `MS-SSIM ${number(metrics.ms_ssim, 4)}`],
    ...["vmaf", "xpsnr"].filter((name) => name in metrics).map((name) => [name.toUpperCase(), number(metrics[name]),
      quality[`${name}_reason`] ?? ("vmaf_neg" in metrics && name === "vmaf" ? `NEG ${number(metrics.vmaf_neg)}` : "")]),
    ["Size", bytes(encoded.bytes), `raw is ${number(metrics.compression_ratio, 1)} times as large`],
    ["Encoding", seconds(encoded.encode_s), `${number(encoded.frames_per_s, 1)} pictures a second, ${
      encoded.device_used ?? "?"}`],
    ["Decoding", seconds(decoded.decode_s), `${number(decoded.frames_per_s, 1)} pictures a second`],
    ["Decoder", decoded.matches_encoder === true ? "matches" : decoded.matches_encoder === false ? "DIFFERS" : "not known",
      "its pictures and the encoder's own"],
    ...cost(found),
  ].filter(Boolean).map(([name, value, more]) => h("div", { class: "tile" }, h("span", { class: "name" }, name),
    h("strong", {}, value), h("span", { class: "more" }, more)));
}

// What does not depend on the clip: the size of the model, what its decoder computes, what the run took of the machine.
function cost({ provenance = {}, settings }) {
  const model = provenance.codec?.models?.[settings.model];
  return [
    model?.decoder_kmac_per_pixel && ["Networks", `${number(model.decoder_kmac_per_pixel, 1)} kMAC`,
      `a pixel to decode; ${number(model.parameters / 1e6)} M parameters`],
    provenance.peak_memory_bytes && ["Memory", bytes(provenance.peak_memory_bytes), `at most, ${provenance.threads} thread${
      provenance.threads === 1 ? "" : "s"}`],
  ];
}

// Everything else that the document says, as it says it.
function facts(found) {
  return [["Clip", found.clip], ["Settings", found.settings], ["Encoding", found.encoding_result],
    ["Decoding", found.decoding_result], ["Provenance", found.provenance], ["Times", found.timeline]]
    .filter(([, about]) => about).map(([name, about]) => h("details", {}, h("summary", {}, name), tree(about)));
}

function tree(value) {
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return values(value.slice(0, 200));
  if (typeof value === "number" && !Number.isInteger(value)) return String(+value.toPrecision(6));
  if (value === null || typeof value !== "object") return values(value);
  return h("dl", {}, Object.entries(value).slice(0, 200).map(([name, each]) => [h("dt", {}, name), h("dd", {}, tree(each))]));
}
