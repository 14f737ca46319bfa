// Two pictures of one size in the same place: a slider between them, side by side, in turns, or the map of their error.
// They are stills, or pictures of a clip that plays.

import { h } from "./dom.js";

export const WAYS = [["slider", "slider"], ["beside", "side by side"], ["flicker", "flicker"], ["error", "error map"]];
const WIDEST = 16; // times that pictures are enlarged at most

export class Stage {
  // names: [left, right]; at: "zoom,left,top,edge", in parts of the stage, so that a link shows the same on a screen of
  // another size; moved(): the place, or the edge, is another.
  constructor({ aspect, names, way, at, moved, signal }) {
    const [zoom, left, top, edge] = at.split(",").map(Number);
    Object.assign(this, { aspect, way, moved, playing: false },
      zoom >= 1 && zoom <= WIDEST ? { zoom, left: left || 0, top: top || 0, edge: edge >= 0 && edge <= 1 ? edge : 0.5 }
        : { zoom: 1, left: 0, top: 0, edge: 0.5 });
    this.layers = ["The other", "This run", "Error"].map((alt, n) => {
      const [still, moving] = [h("img", { alt, draggable: "false" }), h("canvas", { hidden: true, "aria-hidden": "true" })];
      return { box: h("div", { class: `layer ${["under", "over", "error"][n]}` }, still, moving), still, moving };
    });
    this.line = h("div", { class: "edge" });
    this.element = h("div", { class: "stage", tabindex: 0, role: "group", "aria-label": "Pictures: wheel or + and - zoom, " +
      "drag moves, arrow keys turn pictures, the space bar plays" }, this.layers.map((layer) => layer.box), this.line,
    h("span", { class: "side left" }, names[0]), h("span", { class: "side right" }, names[1]));
    this.slider = h("input", { type: "range", class: "wide-range", min: 0, max: 1000, value: 1000 * this.edge, "aria-label":
      "Edge between the two", on: { input: () => { this.edge = this.slider.value / 1000; this.arrange(); }, change: moved } });
    this.element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element.addEventListener("pointermove", (event) => this.drag(event));
    const blink = setInterval(() => { // slower than three times a second, which nobody should be shown
      const { box } = this.layers[1];
      box.style.setProperty("visibility", this.way === "flicker" && box.style.visibility !== "hidden" ? "hidden" : "visible");
    }, 600);
    const resized = new ResizeObserver(() => requestAnimationFrame(() => this.arrange()));
    resized.observe(this.element);
    signal.addEventListener("abort", () => { clearInterval(blink); resized.disconnect(); });
    this.arrange();
  }

  get at() {
    const at = [this.zoom, this.left, this.top, this.edge].map((value) => +value.toFixed(4)).join(",");
    return at === "1,0,0,0.5" ? "" : at;
  }

  // Stills: addresses of [the other, this run], or of [their error].
  show(addresses) {
    const [under, over, error] = this.layers;
    if (addresses.length === 1) [error.still.src] = addresses;
    else [under.still.src, over.still.src] = addresses;
    this.playing = false;
    this.arrange();
  }

  // Pictures of clips that play: bitmaps of [the other, this run], which are let go of.
  draw(bitmaps) {
    bitmaps.forEach((bitmap, n) => {
      const { moving } = this.layers[n];
      if (moving.width !== bitmap.width || moving.height !== bitmap.height) [moving.width, moving.height] = [bitmap.width, bitmap.height];
      moving.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
    });
    if (!this.playing) {
      this.playing = true;
      this.arrange();
    }
  }

  set(way) {
    this.way = way;
    this.arrange();
  }

  whole() {
    Object.assign(this, { zoom: 1, left: 0, top: 0 });
    this.arrange();
  }

  arrange() {
    const { way, zoom, left, top, edge } = this;
    this.element.classList.toggle("beside", way === "beside");
    this.element.style.setProperty("--aspect", this.aspect * (way === "beside" ? 2 : 1));
    this.line.hidden = this.slider.hidden = way !== "slider";
    this.line.style.setProperty("left", `${100 * edge}%`);
    const [width, height] = [this.element.clientWidth / (way === "beside" ? 2 : 1), this.element.clientHeight];
    this.layers.forEach(({ box, still, moving }, n) => {
      box.hidden = (n === 2) !== (way === "error");
      [still.hidden, moving.hidden] = [this.playing && n < 2, !this.playing || n === 2];
      for (const each of [still, moving]) {
        each.style.setProperty("transform", `translate(${left * width}px, ${top * height}px) scale(${zoom})`);
        each.style.setProperty("image-rendering", zoom > 1.5 ? "pixelated" : "auto");
      }
    });
    const over = this.layers[1].box;
    over.style.setProperty("clip-path", way === "slider" ? `inset(0 ${100 * (1 - edge)}% 0 0)` : "none");
    if (way !== "flicker") over.style.setProperty("visibility", "visible");
  }

  zoomBy(factor, x = 0.5, y = 0.5) {
    const next = Math.min(WIDEST, Math.max(1, this.zoom * factor));
    this.left = x - (x - this.left) * next / this.zoom;
    this.top = y - (y - this.top) * next / this.zoom;
    this.zoom = next;
    this.hold();
  }

  hold() {
    this.left = Math.min(0, Math.max(this.left, 1 - this.zoom));
    this.top = Math.min(0, Math.max(this.top, 1 - this.zoom));
    this.arrange();
    this.moved();
  }

  wheel(event) {
    event.preventDefault();
    const box = this.element.getBoundingClientRect();
    const width = box.width / (this.way === "beside" ? 2 : 1);
    this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, ((event.clientX - box.left) % width) / width, (event.clientY - box.top) / box.height);
  }

  drag(event) {
    if (!(event.buttons & 1)) return;
    this.left += event.movementX / (this.element.clientWidth / (this.way === "beside" ? 2 : 1));
    this.top += event.movementY / this.element.clientHeight;
    this.hold();
  }
}
