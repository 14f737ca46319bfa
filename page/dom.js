// Elements from data. Text only ever becomes a text node, so no label or file name is read as markup.

const SVG = "http://www.w3.org/2000/svg";

// h("a", {href, class, on: {click}, style: {width}}, ...children); null, undefined and false children are left out.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

// A choice of one of `options` ([value, words]); `act` gets the value.
export function choice(words, options, value, act) {
  const select = h("select", { on: { change: () => act(select.value) } },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return h("label", { class: "choice" }, h("span", {}, words), select);
}

export function button(words, act, attributes = {}) {
  return h("button", { type: "button", on: { click: act }, ...attributes }, words);
}

// --- how values are written

export function number(value, digits = 2) {
  return typeof value === "number" && Number.isFinite(value) ? value.toFixed(digits) : "–";
}

export function count(value) {
  return typeof value === "number" ? value.toLocaleString("en") : "–";
}

export function bytes(value) {
  if (typeof value !== "number") return "–";
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return `${value} B`;
}

export function seconds(value) {
  if (typeof value !== "number") return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 90) return `${value.toFixed(1)} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  return h("time", { datetime: text, title: text }, at.toLocaleString("sv-SE").slice(5));
}

// One value or a list of them, as a request may have.
export function values(value) {
  return Array.isArray(value) ? value.join(", ") : value === null || value === undefined ? "–" : String(value);
}

// What a run or an experiment is, in a few words: "nvc q16 · carphone", "3 codecs, 5 qualities · bikes".
export function nameOf(found) {
  const { codec, clip, quality, bitrate_mbps: rate, psnr_db: psnr } = found.settings ?? found.setting ?? found;
  const few = (value, words, write) => Array.isArray(value) && value.length > 2 ? `${value.length} ${words}`
    : write(values(value));
  const known = (value) => value !== null && value !== undefined;
  const aim = known(rate) ? few(rate, "rates", (text) => `${text} Mbit/s`) : known(psnr)
    ? few(psnr, "PSNRs", (text) => `${text} dB`) : few(quality, "qualities", (text) => `q${text}`);
  const coded = few(codec, "codecs", (text) => text);
  return `${coded}${/^\d/.test(coded) || /^\d+ [a-zP]/.test(aim) ? "," : ""} ${aim} · ${few(clip, "clips", (text) => text)}`;
}

// The number that "30000/1001" or "4:3" stands for.
export function ratio(text, usual = 1) {
  const [above, below = 1] = String(text ?? "").split(/[/:]/).map(Number);
  return above > 0 && below > 0 ? above / below : usual;
}

export function badge(state) {
  return h("span", { class: `badge ${/^[a-z]+$/.test(state) ? state : ""}` }, state);
}

export function progress(fraction, words) {
  const known = typeof fraction === "number";
  const percent = known ? Math.round(100 * fraction) : 0;
  return h("span", { class: "progress" },
    h("span", { class: "track", role: "progressbar", "aria-label": words || "progress", "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-valuenow": known ? percent : null },
    h("span", { class: "done", style: { width: `${percent}%` } })),
    h("span", { class: "words" }, words || `${percent} %`));
}

// What a whole is made of: one bar, and the parts by name with their share.
export function parts(title, amounts, words) {
  const known = Object.entries(amounts ?? {}).filter(([, amount]) => typeof amount === "number" && amount > 0);
  const total = known.reduce((sum, [, amount]) => sum + amount, 0);
  if (!total) return null;
  return h("section", { class: "parts" }, h("h3", {}, title, h("span", { class: "more" }, ` ${words(total)}`)),
    h("div", { class: "whole", "aria-hidden": "true" }, known.map(([, amount], place) =>
      h("span", { class: `slice colour-${place % 8}`, style: { "flex-grow": 100 * amount / total } }))),
    h("ul", {}, known.map(([name, amount], place) => h("li", {}, h("span", { class: `dot colour-${place % 8}`,
      "aria-hidden": "true" }), ` ${name} `, h("strong", {}, `${Math.round(100 * amount / total)} %`),
    h("span", { class: "more" }, ` ${words(amount)}`)))));
}

// What a run at work is doing, in a few words.
export function doing(now) {
  if (!now) return "";
  const frames = now.frames ? ` ${now.frame ?? 0}/${now.frames}` : "";
  const rate = typeof now.fps === "number" ? ` · ${now.fps.toFixed(now.fps < 10 ? 1 : 0)} fps` : "";
  return `${now.phase ?? "working"}${frames}${rate}${now.eta_s ? ` · ${seconds(now.eta_s)} left` : ""}`;
}
