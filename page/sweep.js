// A grid of runs: how far it is, its rate-distortion curves, the BD-rate matrix, and the runs.

import * as api from "./api.js";
import { badge, button, choice, doing, h, nameOf, number, progress, replace, seconds, values } from "./dom.js";
import { plot } from "./plot.js";
import { Table, csv } from "./table.js";

export const METRICS = [["psnr_y", "PSNR-Y, dB"], ["psnr", "PSNR-YUV 6:1:1, dB"], ["ssim_db", "SSIM, dB"],
  ["ms_ssim_db", "MS-SSIM, dB"]];
// Only where they were asked for.
export const PERCEPTUAL = [["vmaf", "VMAF"], ["vmaf_neg", "VMAF-NEG"], ["xpsnr", "XPSNR 6:1:1, dB"]];
export const RATES = [["bitrate_mbps", "Mbit/s"], ["bpp", "bits a pixel"]];

const GRID = ["clip", "codec", "model", "structure", "effort", "preset", "bitrate_mbps", "psnr_db", "quality"]; // shown where they vary
const RGB = [["psnr_rgb", "PSNR-RGB, dB"], ["ms_ssim_rgb_db", "MS-SSIM-RGB, dB"]]; // of other programs' files only
const WORDS = Object.fromEntries([...METRICS, ...PERCEPTUAL, ...RGB]);
const SHOWN = [["", "all runs"], ["unfinished", "unfinished"], ["completed", "completed"], ["failed", "failed"]];

export class Sweep {
  constructor(place, found, view) {
    this.id = found.experiment_id;
    this.found = found;
    this.view = view;
    this.beside = null; // curves and BD-rates together with those of other programs' files
    this.marked = new Set(); // runs to compare
    this.clips = [found.settings.clip].flat().map(String);
    const from = (name, known, usual) => known.includes(view.query.get(name)) ? view.query.get(name) : usual;
    this.metric = from("metric", [...METRICS, ...PERCEPTUAL].map(([name]) => name), "psnr_y");
    this.rate = from("rate", RATES.map(([name]) => name), "bitrate_mbps");
    this.clip = from("clip", this.clips, this.clips[0]);
    this.across = from("over", ["mean", "median", ...this.clips.map((clip) => `clip ${clip}`)], "mean");
    this.only = from("show", SHOWN.map(([name]) => name), "");
    this.now = h("div", { class: "now" });
    this.choices = h("div", { class: "filters" });
    this.plot = plot({ ...this.curves(), tools: this.tools() });
    this.over = h("div", { class: "filters" });
    this.matrix = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "BD-rate matrix" });
    this.pair = h("span", { class: "pair" });
    this.runs = new Table({ caption: "Runs", columns: [this.mark(), ...RUNS.filter((column) => !GRID.includes(column.name)
      || [found.settings[column.name]].flat().length > 1), ...PERCEPTUAL.filter(([name]) =>
        found.settings.measures?.includes(name)).map(([name, words]) => metric(name, words.split(" ")[0], 2))], file: `${this.id}-runs.csv`, sort: null, name: "runs" });
    replace(place, this.now, h("h2", {}, "Rate and distortion"), this.choices, this.plot, h("h2", {}, "BD-rate"), this.over,
      this.matrix, h("h2", {}, "Runs"),
      h("div", { class: "filters" }, choice("Show", SHOWN, this.only, (only) => this.choose({ only })), this.pair,
        h("span", { class: "grow" }), this.runs.chooser(),
        button("CSV", () => this.runs.saveCsv(), { title: "The runs as a CSV file" })),
      this.runs.element,
      h("details", {}, h("summary", {}, "Settings"), h("dl", {}, Object.entries(found.settings).map(([name, value]) =>
        [h("dt", {}, name), h("dd", {}, name === "tags" ? JSON.stringify(value) : values(value))]))));
    this.drawChoices();
    this.drawPair();
  }

  choose(what) {
    Object.assign(this, what);
    const usual = { metric: "psnr_y", rate: "bitrate_mbps", clip: this.clips[0], over: "mean", show: "" };
    const chosen = { metric: this.metric, rate: this.rate, clip: this.clip, over: this.across, show: this.only };
    api.remember(`experiment/${this.id}`, Object.fromEntries(Object.entries(chosen).filter(([name, value]) =>
      value !== usual[name])));
    this.show(this.found);
  }

  // What is drawn: the sweep's own, or with the anchors from files.
  shown() {
    return this.beside ?? this.found;
  }

  drawChoices() {
    const { clips } = this.shown().bd_rate;
    const metrics = [...METRICS, ...PERCEPTUAL, ...RGB].filter(([name]) => name in this.shown().bd_rate.metrics);
    if (!clips.includes(this.clip)) this.clip = clips[0] ?? this.clips[0];
    if (!["mean", "median"].includes(this.across) && !clips.includes(this.across.slice(5))) this.across = "mean";
    if (this.beside) this.rate = this.beside.bd_rate.rate;
    const file = h("input", { type: "file", multiple: true, accept: ".json,application/json", class: "unseen",
      id: "anchors", on: { change: () => this.compare([...file.files]) } });
    replace(this.choices, clips.length > 1 && choice("Clip", clips.map((clip) => [clip, clip]), this.clip,
      (clip) => this.choose({ clip })),
    choice("Quality", metrics, this.metric, (metric) => this.choose({ metric })),
    !this.beside && choice("Rate", RATES, this.rate, (rate) => this.choose({ rate })),
    h("span", { class: "grow" }), this.beside
      ? button("Without the files", () => { this.beside = null; this.drawChoices(); this.choose({}); })
      : [file, h("label", { for: "anchors", class: "button", title: "Result files of CompressAI or DCVC, as anchors" },
        "Add anchors from files…")]);
    replace(this.over, choice("Over", [["mean", "mean of the clips"], ["median", "median of the clips"],
      ...clips.map((clip) => [`clip ${clip}`, clip])], this.across, (across) => this.choose({ across })),
    h("span", { class: "grow" }), button("CSV", () => this.saveMatrix(), { title: "Every BD-rate as a CSV file" }));
    this.view.source([api.curl(`experiment/${this.id}/status`), api.curl(`experiment/${this.id}/events`),
      `${api.curl(this.plotPath("svg"))} -o plot.svg`]);
  }

  async compare(files) {
    try {
      const anchors = await Promise.all(files.map(async (file) => ({ name: file.name, document: parsed(file.name,
        await file.text()) })));
      this.beside = await api.post(`experiment/${this.id}/bd_rate`, { anchors });
      if (this.beside.unmatched.length) this.view.say(`no clip here is called ${this.beside.unmatched.join(", ")}`);
      if (!this.beside.curves.length) throw new Error(`none of the files' clips is here: ${this.beside.unmatched.join(", ")}`);
      this.view.calm();
    } catch (error) {
      this.beside = null;
      this.view.trouble(error instanceof api.ApiError ? error : new api.ApiError(0, { detail: error.message }));
    }
    this.drawChoices();
    this.choose({});
  }

  plotPath(form) {
    return `experiment/${this.id}/plots/${this.metric in WORDS && !this.metric.includes("rgb") ? this.metric : "psnr_y"}.${
      form}?${new URLSearchParams({ clip: this.clips.includes(this.clip) ? this.clip : this.clips[0], rate: this.rate })}`;
  }

  tools() {
    const fetched = (words, act, title) => button(words, () => act().catch(this.view.trouble), { title });
    return [fetched("CompressAI", async () => {
      for (const name of this.found.bd_rate.curves) {
        const path = `experiment/${this.id}/compressai?${new URLSearchParams({ curve: name })}`;
        await api.download(path, `${name}.json`);
      }
    }, "Each curve as a file for CompressAI's plot command"),
    fetched("PNG", () => api.download(this.plotPath("png"), `${this.id}-${this.clip}.png`), "For papers and slides")];
  }

  mark() {
    return { name: "", sorts: false, cell: (row) => row.status === "completed" && h("input", { type: "checkbox",
      checked: this.marked.has(row.run), "aria-label": `Compare run ${row.run}`, "data-focus": `mark ${row.run}`, on: {
        change: (event) => {
          if (event.target.checked) this.marked.add(row.run);
          else this.marked.delete(row.run);
          if (this.marked.size > 2) this.marked.delete([...this.marked][0]);
          this.drawPair();
          this.runs.draw();
        } } }) };
  }

  drawPair() {
    const [one, other] = this.marked;
    replace(this.pair, other ? h("a", { class: "button", href: `#/compare/${one}/${other}` },
      `Compare ${[one, other].map((run) => nameOf(this.found.runs.find((row) => row.run === run)).split(" · ")[0]).join(" and ")}`)
      : h("span", { class: "hint" }, one ? "Mark another run to compare the two." : "Mark two runs to compare their pictures."));
  }

  show(found, waits = this.waits) {
    this.found = found;
    this.waits = waits;
    const { counts } = found;
    const ended = counts.completed + counts.failed + counts.cancelled;
    replace(this.now, ended < counts.total && h("div", { class: "stack", role: "img", "aria-label": stateWords(counts) },
      ["completed", "failed", "cancelled", "running", "dispatched", "queued"].filter((state) => counts[state]).map(
        (state) => h("span", { class: `part ${state}`, style: { "flex-grow": counts[state] } }))),
    h("p", {}, `${ended} of ${counts.total} runs have ended: ${stateWords(counts)}.`));
    this.plot.update(this.curves());
    this.drawMatrix(this.shown().bd_rate);
    const unfinished = ["queued", "dispatched", "running"];
    for (const run of found.runs) if (run.status === "queued") run.why = waits?.get(run.run)?.why;
    this.runs.show(found.runs.filter((run) => !this.only || run.status === this.only ||
      (this.only === "unfinished" && unfinished.includes(run.status))));
  }

  curves() {
    const { curves, bd_rate: matrix } = this.shown();
    const unit = Object.fromEntries(RATES)[this.rate];
    const own = this.found.bd_rate; // whose colours and marks stay, whatever joins them
    const names = [...new Set([...own.curves, ...(own.left_out ?? []), ...matrix.curves])];
    const mine = curves.filter((curve) => curve.clip === this.clip)
      .sort((one, other) => names.indexOf(one.curve) - names.indexOf(other.curve));
    return {
      title: `${this.clip}: ${WORDS[this.metric]} over ${unit}`, file: `${this.id}-${this.clip}`,
      height: 420, x: { label: unit, log: true }, y: { label: WORDS[this.metric] },
      series: mine.map((curve) => ({
        name: curve.curve, colour: names.indexOf(curve.curve) % 8, marks: true, dashed: Boolean(curve.anchor),
        points: curve.points.filter((point) => typeof point[this.metric] === "number" &&
          typeof point[this.rate] === "number").map((point) => ({
          x: point[this.rate], y: point[this.metric], href: point.run ? `#/experiment/${point.run}` : null,
          words: `${aim(point)}${number(point[this.rate], 4)} ${unit}, ${number(point[this.metric], 3)}${this.metric.startsWith("vmaf") ? "" : " dB"}`,
        })),
      })),
    };
  }

  cell(anchor, test) {
    const found = this.shown().bd_rate.metrics[this.metric] ?? {};
    const table = this.across.startsWith("clip ") ? found.per_clip?.[this.across.slice(5)] : found[this.across];
    return table?.[anchor]?.[test] ?? { percent: null, reason: "not known" };
  }

  drawMatrix(matrix) {
    const names = matrix.curves;
    replace(this.matrix, h("table", { class: "matrix" },
      h("caption", {}, `How much more rate the column takes than the row for the same ${
        WORDS[this.metric].replace(", dB", "")}; below, how much of the range of quality both reach.`),
      h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, names.map((anchor, row) => h("tr", {}, h("th", { scope: "row" }, anchor),
        names.map((test, column) => row === column ? h("td", { class: "same" }, "–")
          : matrixCell(this.cell(row, column))))))),
    matrix.left_out?.length > 0 && h("p", { class: "hint" }, `The first ${names.length} curves; not compared: ${
      matrix.left_out.slice(0, 12).join(", ")}${matrix.left_out.length > 12 ? ` and ${matrix.left_out.length - 12} more` : ""}.`));
  }

  saveMatrix() {
    const { curves, clips, metrics } = this.shown().bd_rate;
    const rows = [["metric", "over", "anchor", "test", "percent", "overlap", "reason"]];
    for (const [metric, found] of Object.entries(metrics)) {
      const tables = [...clips.map((clip) => [clip, found.per_clip[clip]]), ["mean", found.mean], ["median", found.median]];
      for (const [over, table] of tables) {
        table.forEach((row, anchor) => row.forEach((cell, test) => anchor !== test && rows.push(
          [metric, over, curves[anchor], curves[test], cell.percent, cell.overlap, cell.reason])));
      }
    }
    api.save(`${this.id}-bd-rate.csv`, new Blob([csv(rows)], { type: "text/csv" }));
  }
}

function matrixCell(cell) {
  if (cell.percent === null) {
    return h("td", { class: "none", tabindex: 0, title: cell.reason }, "N/A", h("span", { class: "more reason" }, cell.reason));
  }
  const kind = cell.percent < -0.05 ? "less" : cell.percent > 0.05 ? "more-rate" : "";
  const strength = Math.min(1, Math.abs(cell.percent) / 40);
  const range = cell.interval_95 ? `95 %: ${signed(cell.interval_95[0])} … ${signed(cell.interval_95[1])}` : "";
  return h("td", { class: `value ${kind}`, style: { "--strength": strength.toFixed(2) }, title: range },
    h("strong", {}, `${signed(cell.percent)} %`), h("span", { class: "more" },
      `${Math.round(100 * cell.overlap)} % overlap${cell.clips !== undefined ? `, ${cell.clips} clip${
        cell.clips === 1 ? "" : "s"}` : ""}`));
}

function signed(value) {
  const size = Math.abs(value).toFixed(1);
  return `${Number(size) === 0 ? "" : value > 0 ? "+" : "−"}${size}`;
}

function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name}: no JSON`);
  }
}

function stateWords(counts) {
  return Object.entries(counts).filter(([state, n]) => state !== "total" && n).map(([state, n]) => `${n} ${state}`)
    .join(", ");
}

function aim(point) {
  const [name, value] = [["quality", point.quality], ["target", point.psnr_db && `${point.psnr_db} dB`],
    ["target", point.target_mbps && `${point.target_mbps} Mbit/s`]].find(([, value]) => value !== null && value !== undefined) ?? [];
  return name ? `${name} ${value}: ` : "";
}

const setting = (name) => ({ name, value: (row) => row.setting[name], cell: (row) => values(row.setting[name]) });
const metric = (name, words, digits) => ({ name: words, number: true, value: (row) => row.metrics?.[name],
  cell: (row) => number(row.metrics?.[name], digits) });

const RUNS = [
  { name: "run", value: (row) => Number(row.run.split(".")[1] ?? 0), number: false, cell: (row) =>
    h("a", { href: `#/experiment/${row.run}`, class: "id", "data-focus": row.run }, `.${row.run.split(".")[1] ?? 0}`) },
  { name: "state", value: (row) => row.status, cell: (row) => [badge(row.status),
    row.progress ? progress(row.progress.fraction, doing(row.progress))
      : row.error ? h("span", { class: "why" }, row.error.detail ?? row.error.type)
        : row.why ? h("span", { class: "why" }, row.why) : ""] },
  setting("clip"), setting("codec"), setting("model"), setting("structure"),
  { ...setting("effort"), number: true }, setting("preset"),
  { ...setting("bitrate_mbps"), cell: (row) => row.setting.bitrate_mbps ?? "" },
  { ...setting("psnr_db"), cell: (row) => row.setting.psnr_db ?? "" }, { ...setting("quality"), number: true },
  metric("bitrate_mbps", "Mbit/s", 3), metric("bpp", "bpp", 4), metric("psnr_y", "PSNR-Y", 2),
  metric("psnr_db", "PSNR", 2), metric("ssim", "SSIM", 4), metric("ms_ssim", "MS-SSIM", 4),
  { ...metric("encode_s", "encode", 1), cell: (row) => seconds(row.metrics?.encode_s) },
  { ...metric("decode_s", "decode", 1), cell: (row) => seconds(row.metrics?.decode_s) },
  { name: "tries", number: true, value: (row) => row.attempts },
  { name: "worker", class: "worker", value: (row) => row.worker, cell: (row) => row.worker ?? "" },
];
