// Runs the scripts of the tests in the page, one after the other: see firefox.py.

const wrong = []; // what nobody may miss: errors, refusals by the policy
addEventListener("error", (event) => wrong.push(`${event.message} ${event.filename}:${event.lineno}`));
addEventListener("unhandledrejection", (event) => wrong.push(`unhandled: ${event.reason}`));
addEventListener("securitypolicyviolation", (event) => wrong.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
console.error = (...words) => wrong.push(words.join(" "));
window.confirm = () => true;

const $ = (selector) => document.querySelector(selector);
const $$ = (selector) => [...document.querySelectorAll(selector)];
const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

async function until(words, find) {
  for (const ends = Date.now() + 20_000; Date.now() < ends; await wait(50)) {
    const found = find();
    if (found) return found;
  }
  throw new Error(`not within 20 s: ${words}; the page: ${document.body.innerText.slice(0, 900)}`);
}

// A button or link by how its text begins, once it is there.
const button = (text) => until(`a button ${text}`, () => $$("button, a.button, a, label.button").find((each) =>
  (each.getAttribute("aria-label") ?? each.textContent).trim().startsWith(text) && each.offsetParent));

function fill(field, value) {
  if (field.type === "checkbox") field.checked = value;
  else field.value = value;
  for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
}

function press(element, key) {
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

for (;;) {
  const answer = await fetch("next", { cache: "no-store" });
  if (answer.status !== 200) continue;
  const { view, script } = await answer.json();
  const said = { value: null, error: null };
  wrong.length = 0;
  try {
    if (view !== null) {
      location.hash = `#/nowhere-${script}`; // the same view again is another one
      await wait(20);
      $("#main").replaceChildren();
      location.hash = `#/${view}`;
      await until(`the view ${view}`, () => $("#main h1"));
    }
    said.value = await (await import(`./${script}`)).default({ $, $$, until, button, fill, press, wait }) ?? null;
  } catch (error) {
    said.error = `${error.message ?? error}`;
  }
  await fetch("said", { method: "POST", body: JSON.stringify({ ...said, wrong }) });
}
