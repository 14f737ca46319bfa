// A grid of runs: how far it is, its rate-distortion curves, the BD-rate matrix, and the runs.

import * as api from "./api.js";
import { badge, button, choice, doing, h, number, progress, replace, seconds, values } from "./dom.js";
import { plot } from "./plot.js";
import { Table, csv } from "./table.js";

const METRICS = [["psnr_y", "PSNR-Y, dB"], ["psnr", "PSNR-YUV 6:1:1, dB"], ["ssim_db", "SSIM, dB"],
  ["ms_ssim_db", "MS-SSIM, dB"]];
const RATES = [["bitrate_mbps", "Mbit/s"], ["bpp", "bits a pixel"]];

const GRID = ["clip", "codec", "model", "structure", "effort", "quality"]; // shown where they vary

export class Sweep {
  constructor(place, found) {
    this.id = found.experiment_id;
    this.found = found;
    this.metric = "psnr_y";
    this.rate = "bitrate_mbps";
    this.clip = values([found.settings.clip].flat()[0]);
    this.across = "mean";
    this.only = "";
    const clips = [found.settings.clip].flat();
    this.now = h("div", { class: "now" });
    this.plot = plot(this.curves());
    this.matrix = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "BD-rate matrix" });
    this.runs = new Table({ caption: "Runs", columns: RUNS.filter((column) => !GRID.includes(column.name) ||
      [found.settings[column.name]].flat().length > 1), file: `${this.id}-runs.csv`, sort: null });
    replace(place, this.now, h("h2", {}, "Rate and distortion"),
      h("p", { class: "filters" }, clips.length > 1 && choice("Clip", clips.map((clip) => [clip, clip]), this.clip,
        (clip) => this.choose({ clip })),
      choice("Quality", METRICS, this.metric, (metric) => this.choose({ metric })),
      choice("Rate", RATES, this.rate, (rate) => this.choose({ rate }))),
      this.plot, h("h2", {}, "BD-rate"),
      h("p", { class: "filters" }, choice("Over", [["mean", "mean of the clips"], ["median", "median of the clips"],
        ...clips.map((clip) => [`clip ${clip}`, clip])], this.across, (across) => this.choose({ across })),
      h("span", { class: "grow" }), button("CSV", () => this.saveMatrix(), { title: "Every BD-rate as a CSV file" })),
      this.matrix, h("h2", {}, "Runs"),
      h("p", { class: "filters" }, choice("Show", [["", "all runs"], ["unfinished", "unfinished"], ["completed",
        "completed"], ["failed", "failed"]], "", (only) => this.choose({ only })), h("span", { class: "grow" }),
      button("CSV", () => this.runs.saveCsv(), { title: "The runs as a CSV file" })),
      this.runs.element,
      h("details", {}, h("summary", {}, "Settings"), h("dl", {}, Object.entries(found.settings).map(([name, value]) =>
        [h("dt", {}, name), h("dd", {}, name === "tags" ? JSON.stringify(value) : values(value))]))));
  }

  choose(what) {
    Object.assign(this, what);
    this.show(this.found);
  }

  show(found, waits = this.waits) {
    this.found = found;
    this.waits = waits;
    const { counts } = found;
    const ended = counts.completed + counts.failed + counts.cancelled;
    replace(this.now, h("div", { class: "stack", role: "img", "aria-label": stateWords(counts) },
      ["completed", "failed", "cancelled", "running", "dispatched", "queued"].filter((state) => counts[state]).map(
        (state) => h("span", { class: `part ${state}`, style: { "flex-grow": counts[state] } }))),
    h("p", {}, `${ended} of ${counts.total} runs have ended: ${stateWords(counts)}.`));
    this.plot.update(this.curves());
    this.drawMatrix(found.bd_rate);
    const unfinished = ["queued", "dispatched", "running"];
    for (const run of found.runs) if (run.status === "queued") run.why = waits?.get(run.run)?.why;
    this.runs.show(found.runs.filter((run) => !this.only || run.status === this.only ||
      (this.only === "unfinished" && unfinished.includes(run.status))));
  }

  curves() {
    const mine = this.found.curves.filter((curve) => curve.clip === this.clip);
    const unit = Object.fromEntries(RATES)[this.rate];
    const names = this.found.bd_rate.curves;
    return {
      title: `${this.clip}: ${Object.fromEntries(METRICS)[this.metric]} over ${unit}`, file: `${this.id}-${this.clip}`,
      height: 420, x: { label: unit, log: true }, y: { label: Object.fromEntries(METRICS)[this.metric] },
      series: mine.map((curve) => ({
        name: curve.curve, colour: names.indexOf(curve.curve) % 8, marks: true,
        points: curve.points.filter((point) => typeof point[this.metric] === "number").map((point) => ({
          x: point[this.rate], y: point[this.metric], href: `#/experiment/${point.run}`,
          words: `${aim(point)}: ${number(point[this.rate], 4)} ${unit}, ${number(point[this.metric], 3)} dB`,
        })),
      })),
    };
  }

  cell(anchor, test) {
    const found = this.found.bd_rate.metrics[this.metric];
    const table = this.across.startsWith("clip ") ? found.per_clip[this.across.slice(5)] : found[this.across];
    return table?.[anchor]?.[test] ?? { percent: null, reason: "not known" };
  }

  drawMatrix(matrix) {
    const names = matrix.curves;
    replace(this.matrix, h("table", { class: "matrix" },
      h("caption", {}, `How much more rate the column takes than the row for the same ${
        Object.fromEntries(METRICS)[this.metric].replace(", dB", "")}; below, how much of the range of quality both reach.`),
      h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, names.map((anchor, row) => h("tr", {}, h("th", { scope: "row" }, anchor),
        names.map((test, column) => row === column ? h("td", { class: "same" }, "–")
          : matrixCell(this.cell(row, column))))))));
  }

  saveMatrix() {
    const { curves, clips, metrics } = this.found.bd_rate;
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
    return h("td", { class: "none", tabindex: 0, title: cell.reason }, "N/A", h("span", { class: "more" }, cell.reason));
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
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(1)}`;
}

function stateWords(counts) {
  return Object.entries(counts).filter(([state, n]) => state !== "total" && n).map(([state, n]) => `${n} ${state}`)
    .join(", ");
}

function aim(point) {
  return point.quality !== null && point.quality !== undefined ? `quality ${point.quality}` : "";
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
  { ...setting("effort"), number: true }, { ...setting("quality"), number: true },
  metric("bitrate_mbps", "Mbit/s", 3), metric("bpp", "bpp", 4), metric("psnr_y", "PSNR-Y", 2),
  metric("psnr_db", "PSNR", 2), metric("ssim", "SSIM", 4), metric("ms_ssim", "MS-SSIM", 4),
  { ...metric("encode_s", "encode", 1), cell: (row) => seconds(row.metrics?.encode_s) },
  { ...metric("decode_s", "decode", 1), cell: (row) => seconds(row.metrics?.decode_s) },
  { name: "tries", number: true, value: (row) => row.attempts },
  { name: "worker", value: (row) => row.worker, cell: (row) => row.worker ?? "" },
];
