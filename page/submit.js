// A new experiment, or a clone with changes. The form is made from the interface's own description of a request.

import * as api from "./api.js";
import { button, bytes, h, replace } from "./dom.js";

const GRID = ["clip", "codec", "model", "quality", "effort", "preset", "bitrate_mbps", "psnr_db", "structure"];
const FIRST = ["clip", "codec", "quality", "structure", "effort", "frames", "label"];
const AIMS = ["quality", "bitrate_mbps", "psnr_db"];
// What many want, and the fields that it fills in.
const READY = [
  ["One run, as usual", {}],
  ["Beside x264 and x265", { codec: "nvc, x264, x265", quality: "8, 16, 24, 32, 40" }],
  ["Beside AV1 and VVC", { codec: "nvc, svtav1, vvenc", quality: "8, 16, 24, 32, 40" }],
  ["At equal PSNRs", { codec: "nvc, x264, x265, svtav1", psnr_db: "34, 36, 38, 40, 42" }],
  ["More encoding time", { codec: "nvc", effort: "0, 1, 2, 3", quality: "16, 24, 32, 40" }],
  ["Pictures alone", { codec: "nvc, x265", structure: "intra", frames: "1", quality: "8, 16, 24, 32, 40" }],
  ["Low delay", { codec: "nvc, x264, x265", structure: "low_delay", quality: "8, 16, 24, 32, 40" }],
];

export async function show(place, parameters, view) {
  const from = view.query.get("clone");
  view.title(from ? `Clone ${from}` : "New experiment");
  const [described, clips, workers, original] = await Promise.all([api.get("openapi.json"), api.get("clips"),
    api.get("workers"), from ? api.get(`experiment/${encodeURIComponent(from)}/status`) : null]);
  const fields = described.components.schemas.Request.properties;
  const known = { clip: clips.clips.map((clip) => clip.name), model: [...new Set(workers.workers.flatMap((worker) =>
    Object.values(worker.models ?? {}).flatMap((about) => Object.keys(about?.models ?? {}))))], codec: [...new Set(workers.workers.flatMap((worker) => worker.codecs ?? []))] };
  const start = original?.settings ?? {};
  const inputs = {};
  const names = [...FIRST, ...Object.keys(fields).filter((name) => !FIRST.includes(name))];
  const rows = Object.fromEntries(names.map((name) => {
    const [input, row] = fieldOf(name, fields[name], start[name], known[name]);
    inputs[name] = input;
    return [name, row];
  }));
  const runs = h("p", { class: "lead" });
  const gone = h("span", { class: "hint", role: "status" });
  const file = h("input", { type: "file", class: "unseen", id: "clip-file", on: { change: () => send_clip(file.files[0]) } });
  rows.clip.append(h("p", { class: "tools" }, file, h("label", { for: "clip-file", class: "button",
    title: "A video, a picture, or a .zip or .tar of pictures" }, "Upload a clip…"), gone));
  const send = button(from ? "Submit the clone" : "Submit", submit, { class: "primary", type: "submit" });
  const form = h("form", { class: "request", on: { input: preview, submit: (event) => { event.preventDefault(); submit(); } } },
    FIRST.map((name) => rows[name]),
    h("details", { open: Boolean(from) }, h("summary", {}, "More settings"),
      h("div", { class: "request" }, names.filter((name) => !FIRST.includes(name)).map((name) => rows[name]))));
  replace(place, h("h1", {}, from ? `Clone ${from}` : "New experiment"),
    !from && h("p", { class: "filters" }, READY.map(([words, values]) => button(words, () => fill(values)))),
    h("p", { class: "hint" }, `Several values with commas between them (5, 10, 20) make a sweep, also for ${
      GRID.slice(0, -1).join(", ")} and structure. Empty: the default.`), form, runs, h("p", { class: "actions" }, send));

  // A ready-made choice; the clip and what names the experiment stay.
  function fill(values) {
    for (const [name, input] of Object.entries(inputs)) {
      if (["clip", "label", "tags"].includes(name) || input.type === "checkbox") continue;
      const there = values[name]?.split(", ").filter((value) => name !== "codec" || !known.codec.length || known.codec.includes(value));
      input.value = there?.join(", ") ?? "";
    }
    preview();
  }

  function request() {
    const wanted = {};
    for (const [name, input] of Object.entries(inputs)) {
      const value = read(name, fields[name], input);
      if (value !== undefined) wanted[name] = value;
    }
    if (!from) return wanted;
    // Of a clone only what is another than in the original is said.
    return Object.fromEntries([...Object.entries(wanted), ...Object.keys(inputs).filter((name) => !(name in wanted) && name in start &&
      !AIMS.includes(name) && JSON.stringify(start[name]) !== JSON.stringify(fallback(fields[name])))
      .map((name) => [name, fallback(fields[name])])]
      .filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(start[name])));
  }

  // The clip's name is the file's; what a headerless one does not say by its name the service asks for.
  async function send_clip(chosen) {
    if (!chosen) return;
    const name = chosen.name.replace(/[^A-Za-z0-9._-]+/g, "_").replace(/^[^A-Za-z0-9]+/, "").slice(-100) || "clip";
    try {
      const made = await api.upload(`clips/${encodeURIComponent(name)}`, chosen, (sent, size) => {
        gone.textContent = sent < size ? `${Math.round(100 * sent / size)} % of ${bytes(size)} sent` : "looking at it…";
      }, view.signal);
      gone.textContent = `${made.width}×${made.height}, ${made.frames} pictures${made.converted ? `, ${made.converted}` : ""}`;
      rows.clip.querySelector("datalist").append(h("option", { value: made.name }));
      inputs.clip.value = inputs.clip.value.trim() ? `${inputs.clip.value.trim()}, ${made.name}` : made.name;
      preview();
    } catch (error) {
      gone.textContent = "";
      if (error.status === 422) rows.clip.querySelector(".wrong").textContent = error.message;
      else if (error.name !== "AbortError") view.trouble(error);
    }
    file.value = "";
  }

  function preview() {
    const wanted = request();
    const whole = { ...start, ...wanted };
    const total = GRID.reduce((product, name) => product * (Array.isArray(whole[name]) ? whole[name].length : 1), 1);
    replace(runs, total > 1 ? `${total} runs${total > 1000 ? ", and 1000 are the most" : ""}` : "One run");
    view.source([api.curl(from ? `experiment/${from}/clone` : "experiment", { method: "POST", body: wanted })]);
    for (const row of Object.values(rows)) row.querySelector(".wrong").textContent = "";
  }

  async function submit() {
    send.disabled = true;
    try {
      const made = await api.post(from ? `experiment/${encodeURIComponent(from)}/clone` : "experiment", request());
      location.hash = `#/experiment/${made.experiment_id}`;
    } catch (error) {
      if (error.field in inputs) {
        rows[error.field].querySelector(".wrong").textContent = error.message;
        rows[error.field].closest("details")?.setAttribute("open", "");
        inputs[error.field].focus();
      } else view.trouble(error);
    } finally {
      send.disabled = false;
    }
  }

  preview();
  inputs.clip.focus();
}

function scalar(schema) {
  return schema.anyOf?.[0] ?? schema;
}

function fallback(schema) {
  return schema.default ?? null;
}

function fieldOf(name, schema, value, known) {
  const one = scalar(schema);
  const list = `known-${name}`;
  const text = value === undefined || value === null ? "" : name === "tags"
    ? Object.entries(value).map(([key, words]) => `${key}:${words}`).join(", ") : [value].flat().join(", ");
  const usual = JSON.stringify(fallback(schema));
  const options = known?.length ? known : one.enum ?? one.items?.enum;
  const common = { id: `field-${name}`, "aria-describedby": `about-${name}`, spellcheck: "false" };
  const input = [one.type].flat().includes("boolean")
    ? h("input", { type: "checkbox", checked: value ?? fallback(schema), ...common })
    : h("input", { type: "text", value: text, placeholder: usual === "null" || usual === '""' || usual === "{}" ? ""
      : usual.replaceAll(/["[\]]/g, "").replaceAll(",", ", "), list: options ? list : null, autocomplete: "off", ...common });
  const row = h("div", { class: "field" }, h("label", { for: `field-${name}` }, name, GRID.includes(name) &&
    h("span", { class: "grid-mark", title: "several values make a sweep" }, "may be a list")), input,
  options && h("datalist", { id: list }, options.map((option) => h("option", { value: option }))),
  h("span", { class: "hint", id: `about-${name}` }, about(name, schema, one), options && (GRID.includes(name) || one.items)
    ? ` (${options.slice(0, 12).join(", ")})` : ""), h("span", { class: "wrong", role: "alert" }));
  return [input, row];
}

function about(name, schema, one) {
  const range = one.minimum !== undefined ? `, ${one.minimum} to ${one.maximum}` : "";
  return `${schema.description ?? one.description ?? ""}${range}${name === "tags" ? ": name:value, name:value" : ""}`;
}

// What the field says, undefined where it is empty. What cannot be read is sent as it is: the service says what is wrong.
function read(name, schema, input) {
  const one = scalar(schema);
  const types = [one.type].flat();
  if (types.includes("boolean")) return input.checked === fallback(schema) ? undefined : input.checked;
  const text = input.value.trim();
  if (!text) return undefined;
  const value = (part) => types.includes("integer") || types.includes("number")
    ? (part !== "" && Number.isFinite(Number(part)) ? Number(part) : part) : part;
  if (name === "tags") {
    return Object.fromEntries(text.split(",").map((pair) => pair.trim()).filter(Boolean).map((pair) =>
      [pair.split(":")[0].trim(), pair.split(":").slice(1).join(":").trim()]));
  }
  if (types.includes("array")) {
    return text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => (one.items?.type === "number"
      && Number.isFinite(Number(part)) ? Number(part) : part));
  }
  if (!GRID.includes(name) || !text.includes(",")) return value(text);
  return text.split(",").map((part) => part.trim()).filter(Boolean).map(value);
}
