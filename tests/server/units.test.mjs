// The parts of the page that need no browser, by node's own runner: node --test tests/server/units.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";

const STATIC = new URL("../../server/page/static/", import.meta.url);
const load = (name) => import(new URL(name, STATIC));

const { Store } = await load("store.js");
const { FRESH, Game } = await load("game.js");
const { Keeper } = await load("keep.js");
const { wayOf } = await load("input.js");
const { compared } = await load("compare.js");
const { keyOf, placeOf } = await load("keys.js");
const { isSession } = await load("pictures.js");

test("a store tells those who watch what changed, once", () => {
  const store = new Store({ a: 1, b: 2 }), told = [];
  store.watch(["a", "b"], ({ a, b }) => told.push([a, b]));
  store.set({ a: 1 });
  store.set({ a: 3, b: 4 });
  assert.deepEqual(told, [[3, 4]]);
});

test("a way is the larger part of a movement, if it is long enough", () => {
  assert.deepEqual([wayOf(-30, 10, 24), wayOf(10, 30, 24), wayOf(5, -40, 24), wayOf(25, 0, 24)], ["ArrowLeft", "ArrowDown", "ArrowUp", "ArrowRight"]);
  assert.equal(wayOf(20, -20, 24), null);
});

test("decibels and the difference of two pictures", () => {
  const a = new Uint8ClampedArray([10, 20, 30, 255, 0, 0, 0, 255]), b = new Uint8ClampedArray([10, 20, 33, 255, 100, 0, 0, 255]);
  assert.equal(compared(a, a).decibels, Infinity);
  const { decibels, difference } = compared(a, b);
  assert.ok(Math.abs(decibels - 10 * Math.log10(65025 / ((9 + 10000) / 6))) < 1e-9);
  assert.deepEqual([...difference], [0, 0, 12, 255, 255, 0, 0, 255]);
});

test("keys by what they write, and by their place", () => {
  assert.equal(keyOf({ key: "D" }), "d");
  assert.equal(placeOf({ code: "KeyD" }), "d");
  assert.equal(placeOf({ code: "Digit7" }), "7");
  assert.equal(placeOf({ code: "F7" }), undefined);
});

test("a session is JSON", () => {
  const bytes = (text) => new TextEncoder().encode(text);
  assert.ok(isSession(bytes(' {"genie_session": 1')));
  assert.ok(!isSession(bytes("\x89PNG")));
});

// A server that answers as the real one does, for a world of three actions.
function play({ failing = () => false } = {}) {
  const sent = [];
  let depth = 0, last = 0, nodes = 0;
  const frame = (more = {}) => ({ type: "frame", id: nodes++, depth, first: 0, last, ms: {}, ...more });
  const whole = () => frame({ play: 1, path: Array.from({ length: last + 1 }, (_, i) => i), bookmarks: [], seed: 0, steps: 2, temperature: 1 });
  const answers = {
    world: ({ name }) => ({ type: "world", name, title: name, actions: 3, starts: [], prompt: true, played: false, steps: 2, temperature: 1, seed: 0, max_steps: 64 }),
    reset: () => (([depth, last] = [0, 0]), whole()),
    step: () => ((last = ++depth), frame()),
    seek: (message) => ((depth = message.depth), frame()),
    goto: () => (([depth, last] = [last, last]), whole()),
    settings: (message) => ({ ...message }),
  };
  let closed = null;
  const connection = {
    open: true,
    hello: Promise.resolve({ player: "p", world: "w", playing: false, worlds: [], limits: { picture_bytes: 100 } }),
    async send(message) {
      sent.push(message);
      await new Promise((done) => setTimeout(done, 1));
      if (failing(message)) throw new Error("no");
      return answers[message.type](message);
    },
    close() {},
  };
  const store = new Store({ ...FRESH, limit: 61 });
  const game = new Game(store, {
    connect: (_, onclose) => ((closed = onclose), connection),
    draw: async (answer, still) => still(),
    player: { get: () => "", set() {} },
    recall: async () => null,
  });
  return { game, store, sent, connection, close: (...why) => closed(...why) };
}

const until = async (true_) => {
  for (let tries = 0; !true_(); tries++) {
    assert.ok(tries < 400, "it does not come");
    await new Promise((done) => setTimeout(done, 5));
  }
};

// Taps of an action, each until its frame is there.
const tapped = async (game, taps) => {
  const before = game.state.frame.depth;
  for (let n = before + 1; n <= before + taps; n++) {
    game.press(1);
    game.lift(1);
    await until(() => game.state.frame.depth === n);
  }
};

test("a tap is one step, whether or not the key is up before the step begins", async () => {
  const { game, store, sent } = play();
  await game.connect();
  game.run();
  for (const [n, action] of [1, 2, 0].entries()) {
    game.press(action);
    game.lift(action);
    await until(() => store.state.frame.depth === n + 1);
  }
  await new Promise((done) => setTimeout(done, 250));
  assert.deepEqual(sent.filter((m) => m.type === "step").map((m) => m.action), [1, 2, 0]);
});

test("a tap back is one frame back", async () => {
  const { game, store } = play();
  await game.connect();
  game.run();
  await tapped(game, 3);
  game.rewind(true);
  game.rewind(false);
  await until(() => store.state.frame.depth === 2);
  await new Promise((done) => setTimeout(done, 120));
  assert.equal(store.state.frame.depth, 2);
});

test("a step that fails lets the keys go and pauses", async () => {
  const { game, store, sent } = play({ failing: (message) => message.type === "step" });
  await game.connect();
  game.run();
  game.press(1);
  await until(() => !store.state.running);
  assert.equal(store.state.message.text, "no");
  await new Promise((done) => setTimeout(done, 250));
  assert.equal(sent.filter((m) => m.type === "step").length, 1);
});

test("starting again can be undone, to the frame that was shown", async () => {
  const { game, store, sent } = play();
  await game.connect();
  game.run();
  await tapped(game, 3);
  game.seek(2);
  await until(() => store.state.frame.depth === 2);
  await game.reset();
  assert.equal(store.state.frame.depth, 0);
  await store.state.message.act();
  assert.deepEqual(sent.slice(-2).map((m) => m.type), ["goto", "seek"]);
});

test("a recording knows how fast it was played", async () => {
  const { game, store } = play();
  await game.connect();
  store.set({ limit: 20 });
  game.run();
  game.record();
  game.press(1);
  await until(() => store.state.frame.depth >= 3);
  game.release();
  game.stopRecording();
  const [{ from, to, fps }] = store.state.recorded;
  assert.equal(from, 0);
  assert.ok(to >= 3);
  assert.ok(fps <= 20 && fps >= 10, `${fps}`);
});

test("a closed connection stops everything, and another tab's takes over for good", async () => {
  const { game, store, close } = play();
  await game.connect();
  game.press(1);
  close("the game goes on in another tab", 4001);
  assert.deepEqual([store.state.frame, store.state.online, store.state.held.length], [null, false, 0]);
  assert.equal(store.state.veil.button, "Play it here");
});

// What is kept of a game, in a browser of which only IndexedDB is missing: [depth of the saved session, frames after it].
function keeps(saving) {
  const written = [], shelf = { put: async (_, record) => void written.push([record.depth, record.journal.map((entry) => entry[0])]), tidy() {}, plays: async () => [] };
  const { game } = play();
  globalThis.addEventListener = () => {};
  globalThis.document = { hidden: false };
  globalThis.fetch = async () => (await saving.before, { ok: saving.works, statusText: "no", blob: async () => "a session" });
  return { game, written, keeper: new Keeper(game, shelf, "tab", () => "session.genie") };
}

test("frames that come while a session is being saved are written with it, never without those before them", async () => {
  let go;
  const saving = { works: true, before: null }, { game, written, keeper } = keeps(saving);
  await game.connect();
  game.run();
  await keeper.save();
  await tapped(game, 2);
  await until(() => written.length === 3); // the first save, and each frame
  saving.before = new Promise((done) => (go = done));
  const saved = keeper.save();
  await tapped(game, 1);
  assert.deepEqual(written.slice(1), [[0, [0]], [0, [0, 1]]], "nothing is written meanwhile");
  go();
  await saved;
  assert.deepEqual(written.at(-1), [2, [2]]);
});

test("a save that fails loses no frame", async () => {
  const saving = { works: true, before: null }, { game, written, keeper } = keeps(saving);
  await game.connect();
  game.run();
  await keeper.save();
  await tapped(game, 2);
  saving.works = false;
  await keeper.save();
  await until(() => written.length === 4);
  assert.deepEqual(written.at(-1), [0, [0, 1]]);
});
