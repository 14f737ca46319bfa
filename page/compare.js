// One picture of two runs, or of a run and its source: a slider between them, flicker, or the map of their errors.

import * as api from "./api.js";
import { button, choice, h, replace } from "./dom.js";

const KEPT = 24; // pictures in memory
const WAYS = [["slider", "slider"], ["flicker", "flicker"], ["error", "error map"]];

export async function show(place, [run, other = "source"], view) {
  view.title(`Compare ${run}`);
  const name = other === "source" ? "source" : other;
  let frame = Math.max(0, Number.parseInt(view.query.get("frame"), 10) || 0);
  let way = WAYS.some(([key]) => key === view.query.get("way")) ? view.query.get("way") : "slider";
  // Where the pictures stand, in parts of the stage, so that a link shows the same on a screen of another size.
  const [zoomed, x, y, cut] = (view.query.get("at") ?? "").split(",").map(Number);
  let [zoom, left, top, edge] = zoomed >= 1 && zoomed <= 16 ? [zoomed, x || 0, y || 0, cut >= 0 && cut <= 1 ? cut : 0.5]
    : [1, 0, 0, 0.5];
  const urls = new Map(); // address to picture
  let linking = 0;
  const statusOf = (id) => api.get(`experiment/${encodeURIComponent(id)}/status`);
  const [document_, theirs, sweep] = await Promise.all([statusOf(run), other === "source" ? null : statusOf(other),
    run.includes(".") ? statusOf(run.split(".")[0]) : null]);
  // What it may be compared with: the source, and other runs of the sweep on the same clip.
  const partners = (sweep?.runs ?? []).filter((each) => each.run !== run && each.status === "completed" &&
    each.setting.clip === document_.settings.clip);
  const last = Math.max(0, (document_.frames?.length ?? 1) - 1);
  frame = Math.min(frame, last);

  const [under, over, error] = ["The other", "This run", "Error"].map((alt) => h("img", { alt, draggable: "false" }));
  const line = h("div", { class: "edge" });
  const stage = h("div", { class: "stage", tabindex: 0, role: "group", "aria-label":
    "Pictures: wheel or + and - zoom, drag moves, arrow keys turn pictures" }, under, over, error, line,
  h("span", { class: "side left" }, run), h("span", { class: "side right" }, name));
  const slider = h("input", { type: "range", class: "wide-range", min: 0, max: 1000, value: 1000 * edge, "aria-label":
    "Edge between the two", on: { input: () => { edge = slider.value / 1000; arrange(); }, change: () => link() } });
  const scale = h("p", { class: "scale", hidden: true }, h("span", {}, "0"), h("span", { class: "ramp", role: "img",
    "aria-label": "Scale of the error map: black is no difference, white 32 levels of luma or more" }),
  h("span", {}, "32 levels of luma or more"));
  const number = h("input", { type: "number", min: 0, max: last, value: frame, "aria-label": "Picture", on: {
    change: () => go(Number(number.value)) } });
  const about = h("p", { class: "hint" }, "Decoding…");
  const against = h("input", { type: "text", value: name, size: 28, spellcheck: "false", list: "partners", on: { change: () => {
    location.hash = `#/compare/${run}/${encodeURIComponent(against.value.trim() || "source")}?frame=${frame}`; } } });

  stage.style.setProperty("--aspect", (document_.clip?.width ?? 16) / (document_.clip?.height ?? 9));
  replace(place, h("h1", {}, "Compare"),
    h("p", { class: "filters" }, h("a", { class: "button", href: `#/experiment/${run}` }, run),
      h("label", { class: "choice" }, h("span", {}, "with"), against, h("datalist", { id: "partners" },
        h("option", { value: "source" }), partners.map((each) => h("option", { value: each.run }, `${each.setting.codec} ${
          each.setting.quality ?? ""}`)))),
      choice("Way", WAYS, way, (chosen) => { way = chosen; link(); arrange(); load(); }),
      button("‹", () => go(frame - 1), { "aria-label": "Previous picture" }), number, button("›", () => go(frame + 1),
        { "aria-label": "Next picture" }), slider,
      button("Whole picture", () => { [zoom, left, top] = [1, 0, 0]; arrange(); link(); })),
    stage, scale, about);

  const path = (id, of, at = frame) => `experiment/${encodeURIComponent(id)}/pictures/${at}?of=${of}${
    of === "error" && other !== "source" ? `&against=${encodeURIComponent(other)}` : ""}`;

  const pairAt = (at) => [other === "source" ? path(run, "source", at) : path(other, "reconstruction", at),
    path(run, "reconstruction", at)];

  // The next picture, while this one is looked at; if the service is busy with others, then not.
  async function ahead() {
    const [at, kind] = [frame + 1, way];
    if (at > last) return;
    for (const each of kind === "error" ? [path(run, "error", at)] : pairAt(at)) {
      if (urls.has(each) || view.signal.aborted || frame !== at - 1) continue;
      const made = await api.image(each, view.signal).catch(() => null);
      if (!made) return;
      if (urls.has(each)) URL.revokeObjectURL(made);
      else urls.set(each, made);
    }
  }

  // The two pictures at once, which is as many as the service decodes at a time; their error when it is looked at.
  async function load() {
    const wanted = frame;
    const error_path = path(run, "error");
    const pair = pairAt(frame);
    const paths = way === "error" ? [error_path] : pair;
    view.source([...pair, error_path].map((each) => `${api.curl(each)} -o picture.png`));
    let made;
    try {
      made = await Promise.all(paths.map(async (each) => urls.get(each) ?? await patient(each, view.signal)));
    } catch (problem) {
      if (!view.signal.aborted) view.trouble(problem);
      return;
    }
    paths.forEach((each, n) => urls.set(each, made[n]));
    while (urls.size > KEPT) {
      const [oldest] = urls.keys();
      URL.revokeObjectURL(urls.get(oldest));
      urls.delete(oldest);
    }
    if (wanted !== frame || (way === "error") !== (paths.length === 1)) return; // another one is on its way
    if (paths.length === 1) [error.src] = made;
    else [under.src, over.src] = made;
    const row = document_.frames?.[frame];
    replace(about, h("dl", {}, [[run, row], other !== "source" && [other, theirs.frames?.[frame]]].filter(Boolean).map(
      ([id, each]) => [h("dt", { class: "id" }, id), h("dd", {}, each ? `picture ${frame}, ${each.type}: ${
        each.psnr_db?.toFixed(2)} dB, ${each.bytes.toLocaleString("en")} bytes` : "")])),
    "Wheel, + and − zoom both pictures together; drag moves them; arrow keys turn pictures. The address of this page shows " +
      "the same place again.");
    view.calm();
    arrange();
    ahead();
  }

  function arrange() {
    error.hidden = scale.hidden = way !== "error";
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    line.hidden = slider.hidden = way !== "slider";
    over.style.setProperty("clip-path", way === "slider" ? `inset(0 ${100 * (1 - edgeInside())}% 0 0)` : "none");
    for (const each of [under, over, error]) {
      each.style.setProperty("transform", `translate(${left * width}px, ${top * height}px) scale(${zoom})`);
      each.style.setProperty("image-rendering", zoom > 1.5 ? "pixelated" : "auto");
    }
    line.style.setProperty("left", `${100 * edge}%`);
    if (way !== "flicker") over.style.setProperty("visibility", "visible");
  }

  // Where the edge, which stands on the screen, lies within the picture, which may be enlarged and moved.
  function edgeInside() {
    return Math.min(1, Math.max(0, (edge - left) / zoom));
  }

  function link() {
    const at = [zoom, left, top, edge].map((value) => +value.toFixed(4)).join(",");
    api.remember(`compare/${run}/${encodeURIComponent(other)}`, { frame, way, at: at === "1,0,0,0.5" ? "" : at });
  }

  function go(to) {
    frame = Math.min(last, Math.max(0, Math.round(to) || 0));
    number.value = frame;
    link();
    load();
  }

  function zoomBy(factor, x, y) {
    const next = Math.min(16, Math.max(1, zoom * factor));
    [left, top] = [x - (x - left) * next / zoom, y - (y - top) * next / zoom];
    zoom = next;
    hold();
  }

  function hold() {
    left = Math.min(0, Math.max(left, 1 - zoom));
    top = Math.min(0, Math.max(top, 1 - zoom));
    arrange();
    clearTimeout(linking);
    linking = setTimeout(link, 200); // browsers bound how often the address may change
  }

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  stage.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    left += event.movementX / stage.clientWidth;
    top += event.movementY / stage.clientHeight;
    hold();
  });
  stage.addEventListener("keydown", (event) => {
    const middle = [0.5, 0.5];
    const act = { ArrowLeft: () => go(frame - 1), ArrowRight: () => go(frame + 1), "+": () => zoomBy(1.25, ...middle),
      "-": () => zoomBy(0.8, ...middle) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const blink = setInterval(() => { // slower than three times a second, which nobody should be shown
    if (way === "flicker") over.style.setProperty("visibility", over.style.visibility === "hidden" ? "visible" : "hidden");
  }, 600);
  const resized = new ResizeObserver(arrange);
  resized.observe(stage);
  view.signal.addEventListener("abort", () => { clearInterval(blink); clearTimeout(linking); resized.disconnect(); urls.forEach((url) => URL.revokeObjectURL(url)); });
  await load();
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
