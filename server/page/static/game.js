// The game: input becomes actions, actions become frames. It knows no document; views watch the store.

import { sleep } from "./dom.js";

export const NO_LIMIT = 61; // the last notch of the slider: as fast as it goes
const TAP = 180; // ms: a key held for less asks for one frame
const REWIND_PAUSE = 45; // ms between frames going back
const TRIES = [500, 1000, 2000, 4000, 8000]; // ms before each attempt to connect again

export const FRESH = {
  online: false, hello: null, world: null, frame: null, path: [], running: true, rewinding: false, recording: null,
  held: [], steps: 1, temperature: 0, seed: 0, idle: null, limit: 20, bookmarks: [], recorded: [], message: null,
  veil: null, times: [], latencies: [], hidden: false, busy: false,
};

export class Game {
  #connection = null;
  #tapped = null; // an action whose key may be up again before its step could begin
  #pressed = null; // when the key went down whose frame is awaited
  #repeats = 0; // the time from which the held action goes on
  #seeking = null;
  #once = false;
  #back = false; // a frame back is owed, though the key may be up again
  #lastAction = 0;
  #openings = 0; // worlds asked for so far
  #showing = Promise.resolve(); // pictures decode on their own time, but are drawn in order
  #wake = () => {};
  #attempt = 0;
  lastStart = null; // what the path began with: { number } or { blob }; null if that is not known here
  resuming = false; // a kept session is being played again
  followers = []; // who plays the same actions beside this: objects with step, seek and begin
  stepped = () => {}; // (depth, action, answer): after each frame
  changed = () => {}; // after anything else that a session keeps

  // connect(player, onclose) -> Connection. draw(answer) -> a promise. player: { get(), set(id) } across reloads.
  // recall() -> what to go on with, as { world, saved, journal }, where the server has forgotten it.
  constructor(store, { connect, draw, player, recall }) {
    this.store = store;
    this.parts = { connect, draw, player, recall };
    store.watch(["idle", "hidden", "busy"], () => this.#wake());
  }

  get state() {
    return this.store.state;
  }

  // ---- the connection

  async connect() {
    const { store, parts } = this;
    this.#connection?.close();
    store.set({ veil: { text: "Connecting…" } });
    const mine = (this.#connection = parts.connect(parts.player.get(), (why, code) => this.#closed(why, code)));
    try {
      const hello = await mine.hello;
      parts.player.set(hello.player);
      this.#attempt = 0;
      store.set({ hello, online: true, message: null });
      const kept = hello.playing ? null : await parts.recall(hello);
      await this.open(kept?.world ?? hello.world, kept);
    } catch (error) {
      this.say(error.message);
    }
  }

  #closed(why, code) {
    const { store } = this;
    store.set({ frame: null, online: false, recording: null }); // nothing to step from
    this.release();
    const again = () => this.connect();
    if (code === 4001) {
      store.set({ veil: { text: "The game goes on in another tab.", button: "Play it here", act: again } });
      return;
    }
    const wait = TRIES[Math.min(this.#attempt++, TRIES.length - 1)], closed = this.#connection;
    store.set({ veil: { text: `The connection is closed${why ? `: ${why}` : ""}. Trying again…`, button: "Connect again", act: again } });
    setTimeout(() => this.#connection === closed && again(), wait);
  }

  // Ask; what goes wrong is shown, and the answer is then null.
  async ask(message) {
    const asked = this.state.world;
    try {
      const answer = await this.#connection.send(message);
      answer.world = asked;
      if (this.state.message?.alarm) this.store.set({ message: null });
      return answer;
    } catch (error) {
      if (this.#connection.open) this.say(error.message);
      return null;
    }
  }

  // A line below the picture. act: what its button does.
  say(text, { alarm = true, button = "", act = null } = {}) {
    this.store.set({ message: { text, alarm, button, act } });
  }

  // ---- worlds and where they start

  async open(name, kept = null) {
    const before = this.state.world?.name;
    this.release();
    this.store.set({ world: null, frame: null, recording: null }); // no step of the last world may follow this message
    const mine = ++this.#openings, said = this.state.message;
    const world = await this.ask({ type: "world", name });
    if (mine !== this.#openings) return; // another was chosen in the meantime
    if (!world) {
      const fault = this.state.message;
      const other = before ?? this.state.hello.world;
      if (this.#connection.open && other !== name) await this.open(other);
      if (fault !== said) this.store.set({ message: fault });
      return;
    }
    const { steps, temperature, seed } = world;
    this.lastStart = world.starts.length ? { number: 0 } : null;
    this.store.set({ world, frame: null, path: [], bookmarks: [], recorded: [], steps, temperature, seed });
    this.#lastAction = 0;
    if (world.played) await this.show(await this.ask({ type: "show" }));
    else if (kept) await this.resume(kept);
    else if (world.prompt) await this.reset(seed, false);
    else this.store.set({ veil: { text: "Drop a picture here to start a world from it.", choose: true } });
  }

  // Goes on with a kept session: { saved, journal }.
  async resume(kept) {
    this.resuming = true; // and is not kept anew before all of it is there
    try {
      await this.#replayed(kept);
    } finally {
      this.resuming = false;
    }
    this.changed();
  }

  async #replayed({ saved, journal }) {
    await this.file(saved);
    if (!this.state.frame) return this.state.world?.prompt && this.reset(0, false); // it could not be opened, and that was said
    for (const [depth, action, steps, temperature] of journal) {
      const { frame } = this.state;
      if (!frame) return;
      if (frame.depth !== depth) await this.show(await this.ask({ type: "seek", depth }));
      if (steps !== this.state.steps || temperature !== this.state.temperature) await this.sampler(steps, temperature);
      await this.show(await this.ask({ type: "step", action }));
    }
  }

  // Starts again from the picture that led to the frame shown. What is left can be got back.
  async reset(seed = this.state.seed, undo = true) {
    this.stopRecording();
    const { frame, path } = this.state, end = path.at(-1);
    const answer = await this.ask({ type: "reset", seed });
    await this.show(answer);
    if (!answer) return;
    if (this.lastStart) for (const other of this.followers) await other.begin(this.lastStart);
    if (undo && frame && frame.last > 0) this.#offerUndo(end, frame.depth);
    this.changed();
  }

  #offerUndo(id, depth) {
    const act = async () => {
      const there = await this.ask({ type: "goto", id });
      await this.show(there);
      if (there && there.depth !== depth) await this.show(await this.ask({ type: "seek", depth }));
      this.store.set({ message: null });
      this.changed();
    };
    this.say("Started again.", { alarm: false, button: "Undo", act });
  }

  // From one of the world's own pictures.
  async start(number) {
    this.stopRecording();
    const { frame, path, seed } = this.state, end = path.at(-1);
    const answer = await this.ask({ type: "start", number, seed });
    await this.#begun(answer, { number });
    if (answer && frame && frame.last > 0) this.#offerUndo(end, frame.depth);
  }

  // From a picture, or on from a saved session.
  async file(blob) {
    const { world, hello } = this.state;
    if (!world) return;
    const most = hello.limits.picture_bytes, kib = (bytes) => (bytes / 1024).toFixed(0);
    if (blob.size > most) {
      this.say(`the file has ${kib(blob.size)} KiB; ${kib(most)} are the limit`);
      return;
    }
    this.stopRecording();
    const before = this.state.frame, end = this.state.path.at(-1);
    let answer = await this.ask(blob);
    const session = answer?.type === "replay";
    if (session) this.store.set({ frame: null }); // nothing is stepped while a session is opened
    while (answer?.type === "replay") {
      this.store.set({ veil: { text: `Opening the session: frame ${answer.done} of ${answer.total}` } });
      answer = await this.ask({ type: "replay" });
    }
    if (!answer && before && !this.state.frame && this.#connection.open) this.store.set({ frame: before, veil: null });
    await this.#begun(answer, session ? null : { blob });
    if (answer?.drifted) this.say(`${answer.drifted} frames came out otherwise: the session was played on another kind of CPU`);
    else if (answer && !session && before?.last > 0) this.#offerUndo(end, before.depth);
  }

  async #begun(answer, start) {
    await this.show(answer);
    if (!answer) return;
    this.lastStart = start;
    for (const other of this.followers) await other.begin(start ?? { blob: answer.picture });
    this.changed();
  }

  // ---- frames

  show(answer) {
    this.#showing = this.#showing.then(() => this.#draw(answer));
    return this.#showing;
  }

  async #draw(answer) {
    if (!answer || !(await this.parts.draw(answer, () => answer.world === this.state.world && this.#connection.open))) return;
    const { state, store } = this, changes = { frame: answer, veil: null };
    if (answer.path) {
      const { path, bookmarks, seed, steps, temperature, play } = answer;
      Object.assign(changes, { path: [...path], bookmarks, seed, steps, temperature, play });
    } else {
      changes.path = state.path.slice(answer.first - this.first); // without frames that the server let go
      changes.path.length = Math.min(changes.path.length, answer.last - answer.first + 1);
      changes.path[answer.depth - answer.first] = answer.id;
    }
    this.first = answer.first; // the depth of the path's first frame
    const { recording } = state;
    if (recording && answer.depth < recording.depth) changes.recording = { ...recording, id: answer.id, depth: answer.depth, took: [] };
    store.set(changes);
    this.#wake();
  }

  async run() {
    for (;;) {
      const { frame, held, rewinding, running, hidden, busy } = this.state;
      const idle = hidden ? null : this.state.idle;
      const waits = this.#repeats - performance.now();
      const action = this.#tapped ?? (waits > 0 ? undefined : held.at(-1)) ?? idle;
      if (!frame || busy) {
        await new Promise((done) => (this.#wake = done));
      } else if (this.#seeking !== null) {
        const depth = this.#seeking;
        this.#seeking = null;
        await this.#go(depth);
      } else if (rewinding || this.#back) {
        this.#back = false;
        if (frame.depth > frame.first) await this.#go(frame.depth - 1);
        await sleep(REWIND_PAUSE);
      } else if (this.#once || (running && action !== null)) {
        await this.#step(this.#once && action === null ? this.#lastAction : action);
      } else {
        await new Promise((done) => {
          this.#wake = done;
          if (held.length && waits > 0) setTimeout(done, waits);
        });
      }
    }
  }

  async #go(depth) {
    const [answer] = await Promise.all([this.ask({ type: "seek", depth }), ...this.followers.map((other) => other.seek(depth))]);
    await this.show(answer);
  }

  async #step(action) {
    const started = performance.now(), key = this.#pressed, depth = this.state.frame.depth;
    [this.#tapped, this.#once, this.#pressed] = [null, false, null];
    this.#lastAction = action;
    const [answer] = await Promise.all([this.ask({ type: "step", action }), ...this.followers.map((other) => other.step(action))]);
    if (!answer) {
      this.release(); // an error is not repeated for as long as the key is down
      if (this.#connection.open) this.pause(true);
      return;
    }
    this.stepped(depth, action);
    await this.show(answer);
    if (this.state.frame !== answer) return;
    const now = performance.now(), { times, latencies, recording, limit } = this.state;
    this.store.set({
      latencies: key === null ? latencies : [...latencies.slice(-19), now - key],
      times: [...times.filter((t) => now - t < 2000), now].slice(-60),
      recording: recording && { ...recording, took: [...recording.took, Math.max(now - started, 1000 / limit)] },
    });
    if (limit < NO_LIMIT) await sleep(Math.max(0, 1000 / limit - (now - started)));
  }

  // ---- input

  press(action, when = performance.now()) {
    const { held, running } = this.state;
    if (held.includes(action)) return;
    if (!held.length) this.#repeats = performance.now() + TAP; // between two keys there is no pause
    [this.#tapped, this.#pressed] = [running ? action : null, running ? when : null];
    if (!running) this.#lastAction = action;
    this.store.set({ held: [...held, action] });
    this.#wake();
  }

  lift(action) {
    this.store.set({ held: this.state.held.filter((other) => other !== action) });
  }

  release() {
    [this.#tapped, this.#pressed] = [null, null];
    this.store.set({ held: [], rewinding: false });
  }

  pause(value = this.state.running) {
    [this.#tapped, this.#pressed] = [null, null];
    this.store.set({ running: !value });
    this.#wake();
  }

  rewind(on) {
    if (on) this.#back = true;
    this.store.set({ rewinding: on });
    this.#wake();
  }

  single() {
    this.#once = true;
    this.#wake();
  }

  seek(depth) {
    this.#seeking = depth;
    this.#wake();
  }

  async sampler(steps, temperature) {
    this.store.set({ steps, temperature });
    await this.ask({ type: "settings", steps, temperature });
  }

  // ---- bookmarks and recordings

  async bookmark() {
    if (!this.state.frame) return;
    const mark = await this.ask({ type: "bookmark" });
    const { bookmarks } = this.state;
    if (!mark || bookmarks.some(([id]) => id === mark.id)) return;
    this.store.set({ bookmarks: [...bookmarks, [mark.id, mark.depth]] });
    this.changed();
  }

  async go(id) {
    this.stopRecording();
    const answer = await this.ask({ type: "goto", id });
    if (answer) this.lastStart = null; // perhaps another picture's path
    await this.show(answer);
  }

  async forget(id) {
    await this.ask({ type: "forget", id });
    this.store.set({ bookmarks: this.state.bookmarks.filter(([other]) => other !== id) });
    this.changed();
  }

  record() {
    const { frame, recording } = this.state;
    if (!frame) return;
    if (recording) this.stopRecording();
    else this.store.set({ recording: { id: frame.id, depth: frame.depth, took: [] } });
  }

  stopRecording() {
    const { recording, frame, recorded, play, limit } = this.state;
    if (!recording || !frame) return;
    // As fast as it was played.
    const took = [...recording.took].sort((a, b) => a - b), ms = took[took.length >> 1] ?? 1000 / Math.min(limit, 20);
    const fps = Math.max(1, Math.min(50, Math.round(1000 / ms)));
    const { id, depth } = recording;
    this.store.set({ recording: null, recorded: [{ play, first: id, last: frame.id, from: depth, to: frame.depth, fps }, ...recorded] });
  }
}
