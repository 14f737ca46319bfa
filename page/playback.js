// Plays two clips in step: pictures come from the service as PNG files one after the other, and are drawn by the clock.

import * as api from "./api.js";

const AHEAD = 240; // pictures read before they are shown
const KEPT_BYTES = 300e6; // of pictures in memory
const MOST = 1000; // pictures that one request gives

export class Player {
  // paths(first, count): the addresses of both clips; draw(index, [bitmap, bitmap]); changed(): it plays, waits or stands.
  constructor({ paths, last, fps, draw, changed, trouble, signal }) {
    Object.assign(this, { paths, last, fps, draw, changed, trouble, signal });
    this.kept = new Map(); // number of a picture to [blob, blob]
    this.size = 0;
    Object.assign(this, { frame: 0, speed: 1, loop: false, playing: false, waiting: false });
    signal.addEventListener("abort", () => this.pause());
  }

  pause() {
    this.playing = this.waiting = false;
    this.run = null;
    this.reading?.abort();
    this.reading = null;
    this.changed();
  }

  async play(from) {
    const run = this.run = {};
    Object.assign(this, { frame: from >= this.last ? 0 : from, playing: true });
    this.changed();
    try {
      await this.follow(run);
    } catch (error) {
      if (this.run === run && !this.signal.aborted) this.trouble(error);
    }
    if (this.run === run) this.pause();
  }

  // Pictures by the clock, which stands while one is missing: both clips then wait, and none is left out for it.
  async follow(run) {
    let [base, began, speed] = [this.frame, performance.now(), this.speed];
    let drawn = null;
    for (;;) {
      const now = performance.now();
      if (speed !== this.speed) [base, began, speed] = [this.frame, now, this.speed];
      let due = base + Math.floor((now - began) * this.fps * speed / 1000);
      if (due > this.last) {
        if (!this.loop) return;
        [due, base, began] = [0, 0, now];
      }
      if (!this.kept.get(due)?.every(Boolean)) {
        await this.arrival(due, run);
        [base, began] = [due, performance.now()];
      }
      if (this.run !== run) return;
      if (due === drawn) {
        await new Promise(requestAnimationFrame);
        continue;
      }
      const pair = await Promise.all(this.kept.get(due).map((blob) => createImageBitmap(blob)));
      if (this.run !== run) return;
      this.frame = due;
      this.draw(due, pair);
      drawn = due;
    }
  }

  async arrival(index, run) {
    this.waiting = true;
    this.changed();
    for (let tries = 0; !this.kept.get(index)?.every(Boolean); tries += 1) {
      if (tries > 20) throw new Error(`picture ${index} does not arrive`);
      if (!this.reading || index < this.frame || index > this.ahead) this.read(index);
      await Promise.race([this.reading.done, this.noted(index)]);
      if (this.run !== run) return;
    }
    this.waiting = false;
    this.changed();
  }

  noted(index) {
    return new Promise((resolve) => { this.wanted = { index, resolve }; });
  }

  // Reads both clips from a picture on, in the background.
  read(first) {
    this.reading?.abort();
    const reading = this.reading = new AbortController();
    this.ahead = first;
    const count = Math.min(MOST, this.last - first + 1);
    const clips = this.paths(first, count).map((path, which) => this.readOne(path, which, first, reading.signal));
    reading.done = Promise.all(clips).catch((error) => { // 503: others play; once more in a moment
      if (!reading.signal.aborted && error.status && error.status !== 503) throw error;
      return new Promise((resolve) => { setTimeout(resolve, 300); });
    }).finally(() => { if (this.reading === reading) this.reading = null; });
    reading.done.catch(() => {}); // whoever waits for a picture hears of it
  }

  async readOne(path, which, first, signal) {
    let index = first;
    for await (const blob of pictures(await api.stream(path, signal))) {
      if (signal.aborted) return;
      this.keep(index, which, blob);
      index += 1;
      while (index - this.frame > AHEAD && !signal.aborted) await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  }

  keep(index, which, blob) {
    const pair = this.kept.get(index) ?? [null, null];
    this.size += blob.size - (pair[which]?.size ?? 0);
    pair[which] = blob;
    this.kept.set(index, pair);
    this.ahead = Math.max(this.ahead, index);
    if (pair.every(Boolean) && this.wanted?.index === index) this.wanted.resolve();
    for (const [old, blobs] of this.kept) {
      if (this.size <= KEPT_BYTES) break;
      if (old >= this.frame && old <= this.frame + AHEAD) continue;
      this.kept.delete(old);
      this.size -= blobs.reduce((sum, each) => sum + (each?.size ?? 0), 0);
    }
  }
}

// The PNG files that stand one after the other in a stream of bytes, each as a blob.
export async function* pictures(stream) {
  let [rest, at] = [new Uint8Array(0), 8]; // at: where the next chunk of the file begins, after the signature
  for await (const piece of chunks(stream)) {
    const joined = new Uint8Array(rest.length + piece.length);
    joined.set(rest);
    joined.set(piece, rest.length);
    rest = joined;
    while (rest.length >= at + 12) {
      const view = new DataView(rest.buffer, rest.byteOffset + at);
      const end = at + 12 + view.getUint32(0);
      if (rest.length < end) break;
      const last = view.getUint32(4) === 0x49454e44; // IEND
      at = last ? 8 : end;
      if (!last) continue;
      yield new Blob([rest.slice(0, end)], { type: "image/png" });
      rest = rest.slice(end);
    }
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
