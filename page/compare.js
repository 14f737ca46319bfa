// Two runs, or a run and its source: pictures one by one or played in step, and both runs picture by picture in one plot.

import * as api from "./api.js";
import { button, choice, h, nameOf, ratio, replace, values } from "./dom.js";
import { Player } from "./playback.js";
import { plot } from "./plot.js";
import { Stage, WAYS } from "./stage.js";

const KEPT = 24; // stills in memory
const SPEEDS = [["0.125", "⅛"], ["0.25", "¼"], ["0.5", "½"], ["1", "1"], ["2", "2"]];
const NOT_SETTINGS = ["label", "tags", "segments", "timeout_s", "keep", "artifacts"]; // differ without changing a picture

export async function show(place, [run, other = "source"], view) {
  const statusOf = (id) => api.get(`experiment/${encodeURIComponent(id)}/status`);
  const [mine, theirs, sweep] = await Promise.all([statusOf(run), other === "source" ? null : statusOf(other),
    run.includes(".") ? statusOf(run.split(".")[0]) : null]);
  const names = [nameOf(mine), theirs ? nameOf(theirs) : "source"];
  view.title(`${names[0]} beside ${names[1]}`);
  const last = Math.max(0, (mine.frames?.length ?? 1) - 1);
  let frame = Math.min(last, Math.max(0, Number.parseInt(view.query.get("frame"), 10) || 0));
  let linking = 0;
  const urls = new Map(); // address to picture

  const stage = new Stage({ names, at: view.query.get("at") ?? "", signal: view.signal, moved: () => link(200),
    aspect: (mine.clip?.width ?? 16) / (mine.clip?.height ?? 9) * ratio(mine.clip?.sample_aspect),
    way: WAYS.some(([key]) => key === view.query.get("way")) ? view.query.get("way") : "slider" });
  const path = (id, of, at) => `experiment/${encodeURIComponent(id)}/pictures/${at}?of=${of}${
    of === "error" && theirs ? `&against=${encodeURIComponent(other)}` : ""}`;
  const stillsAt = (at) => stage.way === "error" ? [path(run, "error", at)]
    : [theirs ? path(other, "reconstruction", at) : path(run, "source", at), path(run, "reconstruction", at)];
  const played = (id, of, first, count) => `experiment/${encodeURIComponent(id)}/pictures?of=${of}&first=${first}&count=${count}`;
  const player = new Player({ last, fps: ratio(mine.clip?.fps, 25), signal: view.signal, trouble: view.trouble,
    paths: (first, count) => [theirs ? played(other, "reconstruction", first, count) : played(run, "source", first, count),
      played(run, "reconstruction", first, count)],
    draw: (at, bitmaps) => { frame = at; number.value = at; stage.draw(bitmaps); drawWords(); },
    changed: () => drawPlayer() });

  const number = h("input", { type: "number", min: 0, max: last, value: frame, "aria-label": "Picture", on: {
    change: () => go(Number(number.value)) } });
  const start = button("▶", () => toggle(), { class: "play" });
  const waiting = h("span", { class: "hint", role: "status" });
  const about = h("div", { class: "hint" }, "Decoding…");
  const scale = h("p", { class: "scale", hidden: true }, h("span", {}, "0"), h("span", { class: "ramp", role: "img",
    "aria-label": "Scale of the error map: black is no difference; over purple, red and yellow to white, 32 levels of luma or more" }),
  h("span", {}, "32 levels of luma or more"));

  replace(place, h("h1", {}, h("a", { href: `#/experiment/${run}` }, names[0]), " beside ",
    theirs ? h("a", { href: `#/experiment/${other}` }, names[1]) : "its source"),
  h("p", { class: "filters" }, against(run, other, mine, sweep, () => frame),
    choice("View", WAYS, stage.way, (chosen) => { if (chosen === "error") player.pause(); stage.set(chosen); drawPlayer(); link(); load(); }),
    button("Reset zoom", () => { stage.whole(); link(); })),
  h("p", { class: "filters" }, start,
    button("‹", () => go(frame - 1), { "aria-label": "Previous picture" }), number,
    button("›", () => go(frame + 1), { "aria-label": "Next picture" }),
    choice("Speed", SPEEDS, "1", (speed) => { player.speed = Number(speed); }),
    h("label", { class: "choice" }, h("input", { type: "checkbox", on: { change: (event) => {
      player.loop = event.target.checked; } } }), h("span", {}, "loop")), waiting, stage.slider),
  stage.element, scale, about, curves(run, other, mine, theirs, names), theirs && differences(mine, theirs, names));
  drawPlayer();

  function drawPlayer() {
    start.textContent = player.playing ? "❚❚" : "▶";
    start.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    start.disabled = stage.way === "error" || last === 0;
    waiting.textContent = player.waiting ? "reading…" : "";
    scale.hidden = stage.way !== "error";
    if (!player.playing && stage.playing) load(); // the picture it stopped at
  }

  function toggle() {
    if (player.playing) { player.pause(); link(); } else if (!start.disabled) player.play(frame);
  }

  // The two pictures at once, which is as many as the service decodes at a time; their error when it is looked at.
  async function load() {
    const paths = stillsAt(frame);
    const current = () => !view.signal.aborted && !player.playing && paths[0] === stillsAt(frame)[0];
    view.source([...paths.map((each) => `${api.curl(each)} -o picture.png`),
      `${api.curl(played(run, "reconstruction", 0, last + 1))} | ffmpeg -f image2pipe -c:v png -i - …`]);
    try {
      await Promise.all(paths.map(async (each) => { if (!urls.has(each)) keep(each, await patient(each, view.signal)); }));
    } catch (problem) {
      if (current()) view.trouble(problem);
      return;
    }
    if (!current()) return; // another one is on its way
    stage.show(paths.map((each) => urls.get(each)));
    drawWords();
    view.calm();
    if (frame < last && !player.playing) ahead(stillsAt(frame + 1));
  }

  function drawWords() {
    replace(about, h("dl", {}, [[names[0], mine], theirs && [names[1], theirs]].filter(Boolean).map(([name, each]) =>
      [h("dt", {}, name), h("dd", {}, wordsOf(each.frames?.[frame]))])));
  }

  function keep(address, url) {
    if (urls.has(address)) { URL.revokeObjectURL(url); return; }
    urls.set(address, url);
    const [oldest] = urls.keys();
    if (urls.size > KEPT) { URL.revokeObjectURL(urls.get(oldest)); urls.delete(oldest); }
  }

  // The next picture, while this one is looked at; if the service is busy with others, then not.
  async function ahead(paths) {
    const from = frame;
    for (const each of paths) {
      if (urls.has(each) || view.signal.aborted || frame !== from || player.playing) continue;
      const made = await api.image(each, view.signal).catch(() => null);
      if (!made) return;
      keep(each, made);
    }
  }

  function link(after_ms = 0) { // browsers bound how often the address may change
    clearTimeout(linking);
    linking = setTimeout(() => api.remember(`compare/${run}/${encodeURIComponent(other)}`,
      { frame, way: stage.way, at: stage.at }), after_ms);
  }

  function go(to) {
    player.pause();
    frame = Math.min(last, Math.max(0, Math.round(to) || 0));
    number.value = frame;
    link();
    load();
  }

  stage.element.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => go(frame - 1), ArrowRight: () => go(frame + 1), "+": () => stage.zoomBy(1.25),
      "-": () => stage.zoomBy(0.8), " ": toggle }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  view.signal.addEventListener("abort", () => { clearTimeout(linking); urls.forEach((url) => URL.revokeObjectURL(url)); });
  await load();
}

// What it is compared with: the source, and other runs of the sweep on the same clip; any other by its id.
function against(run, other, mine, sweep, frame) {
  const partners = (sweep?.runs ?? []).filter((each) => each.run !== run && each.status === "completed" &&
    each.setting.clip === mine.settings.clip);
  const field = h("input", { type: "text", value: other, size: 28, spellcheck: "false", list: "partners", on: { change: () => {
    location.hash = `#/compare/${run}/${encodeURIComponent(field.value.trim() || "source")}?frame=${frame()}`; } } });
  return h("label", { class: "choice" }, h("span", {}, "With"), field, h("datalist", { id: "partners" },
    h("option", { value: "source" }), partners.map((each) => h("option", { value: each.run }, nameOf(each)))));
}

function wordsOf(row) {
  return row ? `picture ${row.index}, ${row.type}: ${row.psnr_db?.toFixed(2)} dB, ${row.bytes.toLocaleString("en")} bytes` : "";
}

function curves(run, other, mine, theirs, names) {
  const series = [[names[0], mine], theirs && [names[1], theirs]].filter(Boolean).map(([name, each], n) => ({
    name: theirs && names[0] === names[1] ? `${name} (${n + 1})` : name,
    points: (each.frames ?? []).filter((row) => typeof row.psnr_db === "number").map((row) => ({ x: row.index, y: row.psnr_db,
      words: wordsOf(row), href: `#/compare/${run}/${encodeURIComponent(other)}?frame=${row.index}` })) }));
  return plot({ title: "PSNR of each picture; a click shows it", file: `${run}-${other}-psnr`, height: 230, series,
    x: { label: "picture", whole: true }, y: { label: "PSNR, dB" } });
}

function differences(mine, theirs, names) {
  const fields = [...new Set([...Object.keys(mine.settings), ...Object.keys(theirs.settings)])].filter((name) =>
    !NOT_SETTINGS.includes(name) && JSON.stringify(mine.settings[name]) !== JSON.stringify(theirs.settings[name]));
  return [h("h2", {}, "Settings that differ"), fields.length ? h("div", { class: "table" }, h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["", ...names].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, fields.map((name) => h("tr", {}, h("th", { scope: "row" }, name), [mine, theirs].map((each) =>
      h("td", {}, values(each.settings[name])))))))))
    : h("p", { class: "hint" }, "None: both were coded with the same settings.")];
}

async function patient(path, signal) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await api.image(path, signal);
    } catch (error) {
      if (error.status !== 503 || tries > 8) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 300); });
    }
  }
}
