// The rate-distortion curves of several experiments in one plot, and the settings in which they differ.

import * as api from "./api.js";
import { choice, h, nameOf, number, replace, values } from "./dom.js";
import { plot } from "./plot.js";
import { METRICS, PERCEPTUAL, RATES } from "./sweep.js";

const NOT_COMPARED = ["label", "tags", "quality", "bitrate_mbps", "psnr_db", "clip", "codec"]; // seen in the plot, or of no weight

export async function show(place, [list = ""], view) {
  view.title("Curves");
  const ids = [...new Set(list.split(",").filter(Boolean))];
  view.source(ids.map((id) => api.curl(`experiment/${id}/status`)));
  const found = await Promise.all(ids.map((id) => api.get(`experiment/${encodeURIComponent(id)}/status`, { signal: view.signal })));
  const curves = found.flatMap(curvesOf);
  const clips = [...new Set(curves.map((curve) => curve.clip))];
  const metrics = [...METRICS, ...PERCEPTUAL].filter(([name]) => curves.some((curve) => curve.points.some((point) =>
    typeof point[name] === "number")));
  const from = (name, known) => known.includes(view.query.get(name)) ? view.query.get(name) : known[0];
  const chosen = { clip: from("clip", clips), metric: from("metric", metrics.map(([name]) => name)),
    rate: from("rate", RATES.map(([name]) => name)) };
  const choices = h("p", { class: "filters" });
  const figure = plot(drawn());
  const pick = (words, name, options) => choice(words, options, chosen[name], (value) => {
    chosen[name] = value;
    api.remember(`curves/${ids.join(",")}`, chosen);
    figure.update(drawn());
  });
  replace(choices, clips.length > 1 && pick("Clip", "clip", clips.map((clip) => [clip, clip])),
    pick("Quality", "metric", metrics), pick("Rate", "rate", RATES));
  replace(place, h("h1", {}, "Curves of several experiments"), curves.length ? [choices, figure]
    : h("p", { class: "empty" }, "None of them has measured anything yet."), differences(found));

  function drawn() {
    const [words, unit] = [Object.fromEntries(metrics)[chosen.metric] ?? "", Object.fromEntries(RATES)[chosen.rate]];
    return { title: `${chosen.clip ?? ""}: ${words} over ${unit}`, file: `curves-${chosen.clip}`, height: 440,
      x: { label: unit, log: true }, y: { label: words },
      series: curves.filter((curve) => curve.clip === chosen.clip).map((curve) => ({ name: curve.name, marks: true,
        points: curve.points.filter((point) => typeof point[chosen.metric] === "number" && typeof point[chosen.rate] === "number")
          .map((point) => ({ x: point[chosen.rate], y: point[chosen.metric], href: `#/experiment/${point.run}`,
            words: `${number(point[chosen.rate], 4)} ${unit}, ${number(point[chosen.metric], 3)}` })) })) };
  }
}

// The curves of a sweep, each by the experiment it is of; of an experiment with one run, its point.
function curvesOf(found) {
  const of = found.label || found.settings.label || found.experiment_id;
  if (found.curves) return found.curves.map((curve) => ({ name: `${curve.curve} (${of})`, clip: curve.clip, points: curve.points }));
  if (!found.metrics) return [];
  const quality = found.decoding_result?.quality_metrics ?? {};
  return [{ name: `${found.settings.codec} (${of})`, clip: String(found.settings.clip), points: [{ run: found.experiment_id,
    bitrate_mbps: found.metrics.bitrate_mbps, bpp: found.metrics.bpp, psnr_y: quality.psnr_y, psnr: found.metrics.psnr_db,
    vmaf: found.metrics.vmaf, vmaf_neg: found.metrics.vmaf_neg, xpsnr: found.metrics.xpsnr }] }];
}

function differences(found) {
  const names = [...new Set(found.flatMap((each) => Object.keys(each.settings)))].filter((name) => !NOT_COMPARED.includes(name) &&
    new Set(found.map((each) => JSON.stringify(each.settings[name]))).size > 1);
  return [h("h2", {}, "The experiments"), h("div", { class: "table" }, h("div", { class: "scroll", tabindex: 0, role: "region",
    "aria-label": "The experiments" }, h("table", {},
    h("thead", {}, h("tr", {}, ["experiment", "state", ...names].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, found.map((each) => h("tr", {}, h("td", {}, h("a", { href: `#/experiment/${each.experiment_id}` },
      nameOf(each)), h("span", { class: "id more" }, ` ${each.experiment_id}`)), h("td", {}, each.status),
    names.map((name) => h("td", {}, values(each.settings[name])))))))))];
}
