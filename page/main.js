// Which view is shown. Views are modules with show(place, parameters, view); a view ends by its signal.

import * as api from "./api.js";
import { button, h, replace } from "./dom.js";

const VIEWS = {
  list: () => import("./list.js"),
  experiment: () => import("./experiment.js"),
  workers: () => import("./workers.js"),
  submit: () => import("./submit.js"),
  compare: () => import("./compare.js"),
  curves: () => import("./curves.js"),
};
const $ = (id) => document.getElementById(id);
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parameters] = path.split("/").map(decodeURIComponent);
  const view = name in VIEWS ? name : "list";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  calm();
  source([]);
  const place = h("div", { class: `view ${view}` }, h("p", { class: "empty" }, "Reading…"));
  replace($("main"), place);
  try {
    const module = await VIEWS[view]();
    if (signal.aborted) return;
    await module.show(place, parameters, { signal, source, trouble, calm, say, title,
      query: new URLSearchParams(query) });
  } catch (error) {
    if (!signal.aborted) trouble(error);
  }
}

function title(words) {
  document.title = `${words} · Neural video codec`;
}

// The curl lines that give this view's data.
function source(lines) {
  $("source").textContent = lines.join("\n");
  $("source").parentElement.hidden = !lines.length;
}

function trouble(error) {
  if (error instanceof api.ApiError && error.status === 401) { askForKey(error.message); return; }
  if (error instanceof api.ApiError && error.slug === "unknown-experiment") {
    title("Not here");
    replace($("main"), h("div", { class: "view" }, h("h1", {}, "There is no such experiment"), h("p", {}, `${error.message}. `,
      "It may have been deleted. ", h("a", { href: "#/" }, "All experiments"))));
    return;
  }
  const gone = error instanceof TypeError; // what fetch throws when nobody answers
  replace($("alert"), gone ? "The service does not answer; trying again." : error.message);
  $("alert").hidden = false;
  if (!gone && !(error instanceof api.ApiError)) console.error(error);
}

function calm() {
  $("alert").hidden = true;
}

function say(words) {
  $("say").textContent = words;
}

function askForKey(why) {
  if ($("alert").querySelector("form")) return;
  const field = h("input", { type: "password", autocomplete: "off", required: true, "aria-label": "Key", size: 50,
    placeholder: "nck_…" });
  replace($("alert"), h("form", { on: { submit: (event) => {
    event.preventDefault();
    api.keep(field.value);
    show();
  } } }, h("p", {}, `${why}. The key is kept until this tab is closed.`), field, " ",
  h("button", { type: "submit" }, "Use this key")));
  $("alert").hidden = false;
  field.focus();
}

async function health() {
  const found = await api.get("health");
  replace($("health"), `${found.workers} worker${found.workers === 1 ? "" : "s"} · ${found.running} at work · ` +
    `${found.queued} queued`, h("span", { class: "version" }, ` · ${found.version}`));
}

const THEMES = ["system", "light", "dark"];

function theme(name) {
  if (name === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  $("theme").textContent = `Theme: ${name}`;
}

$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
$("source").after(button("Copy", () => navigator.clipboard?.writeText($("source").textContent)
  .then(() => say("copied")), { class: "quiet" }));
theme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");
window.addEventListener("hashchange", () => { show(); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });
api.poll(3000, new AbortController().signal, health, () => replace($("health"), "no answer"));
show();
