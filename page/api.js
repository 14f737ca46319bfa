// Talking to the service this page came from. Every address is relative, so a path prefix in front does not matter.

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service answered ${status}`);
    this.status = status;
    this.field = problem.field;
    this.slug = (problem.type || "").split("/").pop();
  }
}

const KEY = "nvc-key";

export function key() {
  return sessionStorage.getItem(KEY) || "";
}

export function keep(token) {
  sessionStorage.setItem(KEY, token.trim());
}

// The service's own addresses begin with a slash; ours must not.
export function relative(address) {
  return address.replace(/^\/+/, "");
}

export async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (key()) sent.Authorization = `Bearer ${key()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const answer = await fetch(relative(path), {
    method, signal, headers: sent, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 304) return { status: 304, document: null, etag: answer.headers.get("ETag") };
  const type = answer.headers.get("Content-Type") || "";
  const document = type.includes("json") ? await answer.json() : {};
  if (!answer.ok) throw new ApiError(answer.status, document);
  return { status: answer.status, document, etag: answer.headers.get("ETag") };
}

export async function get(path, options = {}) {
  return (await call(path, options)).document;
}

export function post(path, body = {}) {
  return call(path, { method: "POST", body }).then((answer) => answer.document);
}

// An artifact as a file: a plain link cannot show a key.
export async function download(path, name) {
  save(name, await (await bytesOf(path)).blob());
}

// A file to an address, as it is; `heard` is told how many of its bytes have gone.
export function upload(path, file, heard, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how far an upload is
    request.open("PUT", relative(path));
    request.setRequestHeader("Accept", "application/json");
    if (key()) request.setRequestHeader("Authorization", `Bearer ${key()}`);
    request.upload.addEventListener("progress", (event) => heard(event.loaded, event.total));
    request.addEventListener("error", () => reject(new TypeError("the service does not answer")));
    request.addEventListener("abort", () => reject(new DOMException("left", "AbortError")));
    request.addEventListener("load", () => {
      let found = {};
      try { found = JSON.parse(request.responseText); } catch { /* told by its status */ }
      if (request.status < 300) resolve(found);
      else reject(new ApiError(request.status, found));
    });
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

// The address of the view with what is chosen in it, without the entries that are as usual.
export function remember(path, chosen) {
  const query = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value !== "" && value !== null));
  history.replaceState(null, "", `#/${path}${query.size ? `?${query}` : ""}`);
}

async function bytesOf(path, signal) {
  const answer = await fetch(relative(path), { signal, headers: key() ? { Authorization: `Bearer ${key()}` } : {} });
  if (!answer.ok) throw new ApiError(answer.status, await answer.json());
  return answer;
}

export async function image(path, signal) {
  return URL.createObjectURL(await (await bytesOf(path, signal)).blob());
}

export async function stream(path, signal) {
  return (await bytesOf(path, signal)).body;
}

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^A-Za-z0-9._-]/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Follow a document: `show` gets it at once and after each change, until the signal, or until `ended` says so.
// The service holds the answer back until the document is another; `pause_ms` bounds how often a busy one is read.
export async function follow(path, { signal, show, ended, trouble, pause_ms = 400 }) {
  let etag = null;
  while (!signal.aborted) {
    try {
      const headers = etag ? { Prefer: "wait=25", "If-None-Match": etag } : {};
      const answer = await call(path, { signal, headers });
      etag = answer.etag;
      if (answer.document) {
        show(answer.document);
        if (ended(answer.document)) return;
      }
      await rest(pause_ms, signal);
    } catch (error) {
      if (signal.aborted) return;
      trouble(error);
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) return;
      etag = null;
      await rest(2000, signal);
    }
  }
}

// Read something again and again, as long as the page is looked at.
export async function poll(every_ms, signal, act, trouble) {
  while (!signal.aborted) {
    if (!document.hidden) await act().catch((error) => signal.aborted || trouble(error));
    await rest(every_ms, signal);
  }
}

function rest(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

// The command line that gives the same data.
export function curl(path, { method = "GET", body } = {}) {
  const address = new URL(relative(path), document.baseURI).href.split("#")[0];
  const parts = ["curl"];
  if (key()) parts.push('-H "Authorization: Bearer $NVC_KEY"');
  if (method !== "GET") parts.push(`-X ${method}`);
  parts.push(quoted(address));
  if (body !== undefined) parts.push(`-d ${quoted(JSON.stringify(body))}`);
  return parts.join(" ");
}

function quoted(text) {
  return /^[A-Za-z0-9_.:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
