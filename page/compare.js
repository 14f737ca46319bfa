// One picture of two runs, or of a run and its source: a slider between them, flicker, or the map of their errors.

import * as api from "./api.js";
import { button, choice, h, replace } from "./dom.js";

const WAYS = [["slider", "slider"], ["flicker", "flicker"], ["error", "error map"]];

export async function show(place, [run, other = "source"], view) {
  view.title(`Compare ${run}`);
  const name = other === "source" ? "source" : other;
  let frame = Math.max(0, Number.parseInt(view.query.get("frame"), 10) || 0);
  let way = WAYS.some(([key]) => key === view.query.get("way")) ? view.query.get("way") : "slider";
  let [zoom, left, top, edge] = [1, 0, 0, 0.5];
  let urls = [];
  const document_ = await api.get(`experiment/${encodeURIComponent(run)}/status`);
  const last = Math.max(0, (document_.frames?.length ?? 1) - 1);
  frame = Math.min(frame, last);

  const [under, over, error] = ["The other", "This run", "Error"].map((alt) => h("img", { alt, draggable: "false" }));
  const line = h("div", { class: "edge" });
  const stage = h("div", { class: "stage", tabindex: 0, role: "group", "aria-label":
    "Pictures: wheel or + and - zoom, drag moves, arrow keys turn pictures" }, under, over, error, line,
  h("span", { class: "side left" }, run), h("span", { class: "side right" }, name));
  const slider = h("input", { type: "range", class: "wide-range", min: 0, max: 1000, value: 500, "aria-label":
    "Edge between the two", on: { input: () => { edge = slider.value / 1000; arrange(); } } });
  const number = h("input", { type: "number", min: 0, max: last, value: frame, "aria-label": "Picture", on: {
    change: () => go(Number(number.value)) } });
  const about = h("p", { class: "hint" }, "Decoding…");
  const against = h("input", { type: "text", value: name, size: 28, spellcheck: "false", on: { change: () => {
    location.hash = `#/compare/${run}/${encodeURIComponent(against.value.trim() || "source")}?frame=${frame}`; } } });

  replace(place, h("h1", {}, "Compare"),
    h("p", { class: "filters" }, h("a", { class: "button", href: `#/experiment/${run}` }, run),
      h("label", { class: "choice" }, h("span", {}, "with"), against),
      choice("Way", WAYS, way, (chosen) => { way = chosen; link(); arrange(); }),
      button("‹", () => go(frame - 1), { "aria-label": "Previous picture" }), number, button("›", () => go(frame + 1),
        { "aria-label": "Next picture" }), slider,
      button("1:1", () => { [zoom, left, top] = [1, 0, 0]; arrange(); }, { title: "The whole picture" })),
    stage, about);

  const path = (id, of) => `experiment/${encodeURIComponent(id)}/pictures/${frame}?of=${of}${
    of === "error" && other !== "source" ? `&against=${encodeURIComponent(other)}` : ""}`;

  async function load() {
    const wanted = frame;
    const paths = [other === "source" ? path(run, "source") : path(other, "reconstruction"), path(run, "reconstruction"),
      path(run, "error")];
    view.source(paths.map((each) => `${api.curl(each)} -o picture.png`));
    const made = [];
    try {
      for (const each of paths) made.push(await patient(each, view.signal)); // one after another: two at once is the most
    } catch (problem) {
      if (!view.signal.aborted) view.trouble(problem);
      return;
    }
    if (wanted !== frame) { made.forEach(URL.revokeObjectURL); return; }
    urls.forEach(URL.revokeObjectURL);
    urls = made;
    [under.src, over.src, error.src] = made;
    await over.decode().catch(() => null);
    stage.style.setProperty("aspect-ratio", `${over.naturalWidth} / ${over.naturalHeight}`);
    const row = document_.frames?.[frame];
    replace(about, row ? `Picture ${frame}, ${row.type}: ${row.psnr_db?.toFixed(2)} dB, ${row.bytes} bytes. ` : "",
      way === "error" ? "Black: equal; white: 32 levels of luma or more." : "");
    view.calm();
    arrange();
  }

  function arrange() {
    error.hidden = way !== "error";
    line.hidden = slider.hidden = way !== "slider";
    over.style.setProperty("clip-path", way === "slider" ? `inset(0 ${100 * (1 - edgeInside())}% 0 0)` : "none");
    for (const each of [under, over, error]) {
      each.style.setProperty("transform", `translate(${left}px, ${top}px) scale(${zoom})`);
    }
    line.style.setProperty("left", `${100 * edge}%`);
    if (way !== "flicker") over.style.setProperty("visibility", "visible");
  }

  // Where the edge, which stands on the screen, lies within the picture, which may be enlarged and moved.
  function edgeInside() {
    const width = stage.clientWidth || 1;
    return Math.min(1, Math.max(0, (edge * width - left) / (zoom * width)));
  }

  function link() {
    history.replaceState(null, "", `#/compare/${run}/${encodeURIComponent(other)}?frame=${frame}&way=${way}`);
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
    left = Math.min(0, Math.max(left, stage.clientWidth * (1 - zoom)));
    top = Math.min(0, Math.max(top, stage.clientHeight * (1 - zoom)));
    arrange();
  }

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX, event.offsetY);
  }, { passive: false });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) { left += event.movementX; top += event.movementY; hold(); }
  });
  stage.addEventListener("keydown", (event) => {
    const middle = [stage.clientWidth / 2, stage.clientHeight / 2];
    const act = { ArrowLeft: () => go(frame - 1), ArrowRight: () => go(frame + 1), "+": () => zoomBy(1.25, ...middle),
      "-": () => zoomBy(0.8, ...middle) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const blink = setInterval(() => { // slower than three times a second, which nobody should be shown
    if (way === "flicker") over.style.setProperty("visibility", over.style.visibility === "hidden" ? "visible" : "hidden");
  }, 600);
  view.signal.addEventListener("abort", () => { clearInterval(blink); urls.forEach(URL.revokeObjectURL); });
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
