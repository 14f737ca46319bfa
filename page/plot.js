// Plots as SVG: lines with marks, or bars. The nearest point answers the pointer; marks are links that Tab reaches.

import { append, button, h, replace, s } from "./dom.js";
import { save } from "./api.js";

const MARGIN = { top: 12, right: 16, bottom: 42, left: 58 };
const SERIES_COLOURS = 8; // .colour-0 … of the style sheet
const SHAPES = [
  "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z", // circle
  "M-4-4H4V4H-4Z", "M0-5.5L5 4H-5Z", "M0-6L5.5 0L0 6L-5.5 0Z", "M0 5.5L5-4H-5Z",
  "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
];

// spec: {title, file, height, x: {label, log}, y: {label, zero}, series: [{name, colour, points: [{x, y, words, href}],
//        kind: "line" | "bars", marks, dashed}], tools: [elements]}. Returns the figure; `figure.update(spec)` draws other data in it.
export function plot(spec) {
  const drawing = h("div", { class: "drawing" });
  const tip = h("div", { class: "tip", hidden: true, role: "status" });
  const legend = h("ul", { class: "legend" });
  const hidden = new Set();
  const figure = h("figure", { class: "plot" }, h("figcaption", {}, spec.title), legend, drawing, tip,
    h("p", { class: "tools" }, spec.tools, button("SVG", () => save(`${spec.file ?? "plot"}.svg`, svgOf(drawing.firstChild)),
      { title: "This plot as an SVG file" })));

  function draw() {
    const shown = { ...spec, series: spec.series.filter((series) => !hidden.has(series.name)) };
    const width = Math.max(260, drawing.clientWidth || 640);
    replace(drawing, picture(shown, width, spec.height ?? 340, tip, figure));
  }

  function drawLegend() {
    replace(legend, spec.series.length > 1 && spec.series.map((series, index) => h("li", {},
      h("button", { type: "button", "aria-pressed": String(!hidden.has(series.name)), on: { click: (event) => {
        if (!hidden.delete(series.name)) hidden.add(series.name);
        event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(series.name)));
        draw();
      } } }, swatch(series, index), series.name))));
  }

  figure.update = (other) => {
    const names = (some) => some.series.map((series) => series.name).join("\n");
    const same = names(other) === names(spec);
    spec = other;
    figure.querySelector("figcaption").textContent = spec.title;
    if (!same) drawLegend();
    if (drawing.clientWidth) draw();
  };
  drawLegend();
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(drawing); // not within: drawing changes sizes
  return figure;
}

function swatch(series, index) {
  const shape = series.kind === "bars" ? "M-5-5H5V5H-5Z" : SHAPES[index % SHAPES.length];
  return s("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" },
    s("path", { d: shape, class: `mark colour-${series.colour ?? index % SERIES_COLOURS}` }));
}

function picture(spec, width, height, tip, figure) {
  const points = spec.series.flatMap((series) => series.points);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label":
    `${spec.title}: ${spec.series.map((series) => `${series.name}, ${series.points.length} points`).join("; ")}` });
  if (!points.length) {
    svg.append(s("text", { x: width / 2, y: height / 2, class: "note", "text-anchor": "middle" }, "no points yet"));
    return svg;
  }
  const x = axis(points.map((point) => point.x), MARGIN.left, width - MARGIN.right, spec.x,
    Math.max(3, Math.floor(width / 90)));
  const y = axis(points.map((point) => point.y), height - MARGIN.bottom, MARGIN.top, spec.y, 6);
  svg.append(grid(x, y, width, height, spec));
  const placed = [];
  spec.series.forEach((series, index) => {
    const colour = `colour-${series.colour ?? index % SERIES_COLOURS}`;
    const at = series.points.map((point) => ({ left: x.place(point.x), top: y.place(point.y), point, series }));
    placed.push(...at);
    if (series.kind === "bars") svg.append(bars(at, colour, y.place(y.low), x));
    else svg.append(line(at, `${colour}${series.dashed ? " dashed" : ""}`, width));
    if (series.marks) for (const each of at) svg.append(mark(each, SHAPES[index % SHAPES.length], colour, tip, figure));
  });
  answerPointer(svg, placed, tip, figure, height);
  return svg;
}

function line(at, colour, width) {
  const path = thinned(at, width).map(({ left, top }, n) => `${n ? "L" : "M"}${left.toFixed(1)} ${top.toFixed(1)}`);
  return s("path", { d: path.join(""), class: `line ${colour}` });
}

// Of many points within one column of pixels only the lowest and the highest are seen.
function thinned(at, width) {
  if (at.length < 4 * width) return at;
  const kept = [];
  for (let n = 0; n < at.length;) {
    const column = Math.round(at[n].left);
    let [low, high] = [at[n], at[n]];
    for (; n < at.length && Math.round(at[n].left) === column; n += 1) {
      if (at[n].top < low.top) low = at[n];
      if (at[n].top > high.top) high = at[n];
    }
    kept.push(...(low.point.x <= high.point.x ? [low, high] : [high, low]));
  }
  return kept;
}

// All bars of a series are one path, so that ten thousand of them are one element.
function bars(at, colour, floor, x) {
  const half = Math.max(0.4, Math.min(14, 0.4 * Math.abs(x.place(x.first + 1) - x.place(x.first))));
  const path = at.map(({ left, top }) =>
    `M${(left - half).toFixed(2)} ${floor}V${top.toFixed(1)}h${(2 * half).toFixed(2)}V${floor}Z`);
  return s("path", { d: path.join(""), class: `bars ${colour}` });
}

function mark(each, shape, colour, tip, figure) {
  const { left, top, point, series } = each;
  const words = `${series.name}: ${point.words}`;
  const link = s("a", { href: point.href ?? null, tabindex: point.href ? null : 0, "aria-label": words, on: {
    focus: () => tell(tip, figure, each), blur: () => { tip.hidden = true; },
  } }, s("path", { d: shape, class: `mark ${colour}`, transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})` }));
  return link;
}

function answerPointer(svg, placed, tip, figure, height) {
  const ring = s("circle", { r: 8, class: "ring", visibility: "hidden" });
  svg.append(ring);
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const bars = placed.some((each) => each.series.kind === "bars" || !each.series.marks);
    let [found, best] = [null, bars ? 900 : 1600];
    for (const each of placed) { // where there are no marks the nearest column counts, at whatever height
      const away = (each.left - left) ** 2 + (bars ? 0.01 : 1) * (each.top - top) ** 2;
      if (away < best) [found, best] = [each, away];
    }
    return top < height ? found : null;
  };
  svg.addEventListener("pointermove", (event) => {
    const found = nearest(event);
    ring.setAttribute("visibility", found ? "visible" : "hidden");
    svg.style.cursor = found?.point.href ? "pointer" : "";
    if (!found) { tip.hidden = true; return; }
    ring.setAttribute("cx", found.left);
    ring.setAttribute("cy", found.top);
    tell(tip, figure, found);
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("click", (event) => {
    const found = nearest(event);
    if (found?.point.href && !event.target.closest("a")) location.hash = found.point.href.slice(1);
  });
}

function tell(tip, figure, { left, top, point, series }) {
  replace(tip, h("strong", {}, series.name), " ", point.words);
  tip.hidden = false;
  const drawing = figure.querySelector(".drawing");
  const most = drawing.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${drawing.offsetLeft + Math.max(0, Math.min(most, left + 12))}px`;
  tip.style.top = `${drawing.offsetTop + Math.max(0, top - tip.offsetHeight - 10)}px`;
}

function grid(x, y, width, height, spec) {
  const [floor, right] = [height - MARGIN.bottom, width - MARGIN.right];
  const group = s("g", { "aria-hidden": "true" });
  for (const tick of y.ticks) {
    const top = y.place(tick.at);
    append(group, [s("line", { x1: MARGIN.left, x2: right, y1: top, y2: top, class: "grid" }),
      s("text", { x: MARGIN.left - 8, y: top + 4, "text-anchor": "end" }, tick.words)]);
  }
  for (const tick of x.ticks) {
    const left = x.place(tick.at);
    append(group, [s("line", { x1: left, x2: left, y1: MARGIN.top, y2: floor, class: "grid" }),
      s("text", { x: left, y: floor + 16, "text-anchor": "middle" }, tick.words)]);
  }
  append(group, [
    s("line", { x1: MARGIN.left, x2: right, y1: floor, y2: floor, class: "axis" }),
    s("text", { x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, spec.x.label),
    s("text", { transform: `translate(14 ${(MARGIN.top + floor) / 2}) rotate(-90)`, "text-anchor": "middle",
      class: "label" }, spec.y.label)]);
  return group;
}

// Where a value stands between two pixels, and the ticks: 1, 2, 5 times a power of ten, also along a logarithm.
function axis(values, from, to, { log = false, zero = false, whole = false }, wanted) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  const first = low;
  if (log && low > 0) {
    [low, high] = [low / 1.15, high * 1.15];
    const place = (value) => from + (to - from) * Math.log(value / low) / Math.log(high / low);
    return { place, low, first, ticks: logTicks(low, high, wanted) };
  }
  if (zero) low = Math.min(0, low);
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  if (whole) { low -= 0.6; high += 0.6; } else { low = zero && low === 0 ? 0 : low - room; high += room; }
  const place = (value) => from + (to - from) * (value - low) / (high - low);
  const step = niceStep((high - low) / wanted, whole);
  const ticks = [];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9 * step; at += step) {
    ticks.push({ at, words: short(at, Math.min(digits, 6)) });
  }
  return { place, low, first, ticks };
}

function niceStep(rough, whole) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= 0.8 * rough) ?? 10);
  return whole ? Math.max(1, Math.round(step)) : step;
}

function logTicks(low, high, wanted) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 3, 5, 7]) {
      const at = factor * 10 ** power;
      if (at >= low && at <= high) all.push({ at, factor, words: short(at, Math.max(0, -power)) });
    }
  }
  for (const kept of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const some = all.filter((tick) => kept.includes(tick.factor));
    if (some.length <= wanted || kept.length === 1) return some.length >= 2 ? some : all;
  }
  return all;
}

function short(value, digits) {
  if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (Math.abs(value) >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  return value.toFixed(digits);
}

// The drawing as a file of its own: what the style sheet says is written into each element.
function svgOf(drawn) {
  const copy = drawn.cloneNode(true);
  const from = [drawn, ...drawn.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, index) => {
    const style = getComputedStyle(from[index]);
    for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "opacity"]) {
      if (element.localName !== "g") element.setAttribute(name, style.getPropertyValue(name));
    }
    element.removeAttribute("class");
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}
