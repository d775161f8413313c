// The page: draws frames, takes keys, remembers the path that was played.

import { hasSimd } from "./genie.mjs";
import { gif } from "./gif.mjs";
import { actionOf, gamepadAction } from "./keys.mjs";
import { packed, unpacked } from "./link.mjs";

const by = (id) => document.getElementById(id);
const MOST_FRAMES = 2000; // of a path; older ones are forgotten
const RATE = 15; // frames a second at most
const TAP = 180; // milliseconds: a key held for less asks for one frame

// What is played. `path`: {action, frame, state, sampler} of every frame; `at`: the one shown; `forgotten`: frames before.
const play = { plan: null, start: 0, picture: null, seed: "0", path: [], at: 0, forgotten: 0, held: [], repeats: 0, failed: false };

// ---- the worker ----

let worker, waiting = new Map(), asked = 0;

function call(name, given = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, call: name, given });
  });
}

function heard({ data }) {
  if (data.progress) return loading(data.progress);
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  data.error ? reject(new Error(data.error)) : resolve(data.result);
}

// In a single file everything is in the page; else it lies beside it.
const inside = (id) => {
  const text = by(id)?.textContent;
  return text === undefined ? undefined : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
};

// How many threads: one for each core, of which CPUs beyond four are taken to be halves.
const wanted = () => {
  const cpus = navigator.hardwareConcurrency || 1;
  return Math.min(8, cpus > 4 ? Math.floor(cpus / 2) : cpus);
};

async function begin() {
  const code = by("worker-code");
  const address = code ? URL.createObjectURL(new Blob([code.textContent], { type: "text/javascript" })) : "worker.mjs";
  worker = new Worker(address, { type: code ? "classic" : "module" });
  worker.onmessage = heard;
  worker.onerror = () => say("the player's worker could not be started", true);
  const simd = hasSimd();
  if (code) {
    play.plan = JSON.parse(by("plan").textContent);
    const wasm = inside(simd ? "wasm-simd128" : "wasm");
    play.starts = (await call("load", { plan: play.plan, weights: inside("weights"), wasm })).starts;
  } else {
    const answer = await fetch("plan.json").catch(() => null);
    if (!answer?.ok) throw new Error("plan.json is not beside this page");
    play.plan = await answer.json().catch(() => Promise.reject(new Error("the world's plan is damaged or was cut off")));
    const { starts, threads } = await call("load", { url: new URL("plan.json", location.href).href, threads: wanted() });
    play.starts = starts;
    document.body.dataset.threads = threads;
  }
  if (!simd) by("note").textContent = "This browser has no WebAssembly SIMD, so the world is several times slower.";
  show();
  let linked = null, wrong = "";
  try {
    linked = unpacked(location.hash.slice(1), play.starts.length, Math.max(play.plan.actions, 1));
  } catch (error) {
    wrong = error.message; // the world itself is none the worse
  }
  if (linked) {
    by("seed").value = linked.seed;
    by("steps").value = linked.sampler.steps;
    by("temperature").value = linked.sampler.temperature;
  }
  if (play.starts.length) await reset(linked?.start ?? 0);
  else say("Choose a picture to start from.");
  for (const action of linked?.actions ?? []) {
    if (play.failed) break;
    await step(action);
  }
  if (wrong) say(wrong, true);
}

function loading([, bytes, total]) {
  by("loading").hidden = false;
  by("bar").value = total ? bytes / total : 0;
  by("loaded").textContent = `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

// ---- playing ----

const within = (id) => Math.min(by(id).max, Math.max(by(id).min, Number(by(id).value) || 0));
const sampler = () => ({ steps: Math.round(within("steps")), temperature: within("temperature") });
const seed = () => (/^\d{1,20}$/.test(by("seed").value) ? by("seed").value : "0");

function say(text, fault = false) {
  by("says").textContent = text;
  by("says").classList.toggle("fault", fault);
  if (fault) by("loading").hidden = true;
}

// One thing after another. A fault is a sentence, and the rest of the page still works.
let turn = Promise.resolve();
const during = (work) =>
  (turn = turn.then(work).catch((error) => {
    play.held = [];
    say(error.message, true);
  }));

// start: the number of a start picture, or a picture of one's own (a Blob).
const reset = (start) =>
  during(async () => {
    const own = start instanceof Blob;
    const given = { picture: own ? start : play.starts[start], seed: seed(), sampler: sampler() };
    const { frame, state } = await call("reset", given);
    [play.start, play.picture, play.failed] = own ? [-1, start, false] : [start, null, false];
    play.path = [{ action: -1, frame, state, sampler: given.sampler }];
    [play.at, play.forgotten, play.seed] = [0, 0, given.seed];
    say("");
    by("loading").hidden = true;
    draw();
  });

const step = (action) =>
  during(async () => {
    if (!play.path.length) return;
    if (play.at < play.path.length - 1) { // from an older frame: a branch
      await call("restore", { state: play.path[play.at].state });
      play.path.length = play.at + 1;
    }
    const now = sampler();
    play.failed = true; // until it has not: an error is not repeated for as long as a key is down
    const { frame, state, ms } = await call("step", { action, sampler: now });
    play.failed = false;
    play.path.push({ action, frame, state, sampler: now });
    if (play.path.length > MOST_FRAMES) [play.path.shift(), play.forgotten++];
    play.at = play.path.length - 1;
    by("speed").textContent = `${Math.round(ms)} ms a frame`;
    draw();
  });

function go(at) {
  if (!play.path.length) return;
  play.at = Math.max(0, Math.min(play.path.length - 1, at));
  draw();
}

async function loop() {
  for (;;) {
    const begun = performance.now();
    const held = begun >= play.repeats ? play.held.at(-1) : undefined;
    const action = held ?? gamepadAction(play.plan.keys) ?? (by("idle").value === "" ? undefined : Number(by("idle").value));
    if (action !== undefined && (held !== undefined || !play.held.length) && !play.failed && !document.hidden && !document.querySelector("dialog[open]")) await step(action);
    await new Promise((done) => setTimeout(done, Math.max(4, 1000 / RATE - (performance.now() - begun))));
  }
}

// ---- what is seen ----

function draw() {
  const { frame: [width, height] } = play.plan, shown = play.path[play.at];
  const canvas = by("world");
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(new ImageData(shown.frame, width, height), 0, 0);
  by("time").max = play.path.length - 1;
  by("time").value = play.at;
  by("frame").textContent = `frame ${play.forgotten + play.at} of ${play.forgotten + play.path.length - 1}`;
  const name = play.plan.action_names?.[shown.action];
  for (const button of by("actions").children)
    button.classList.toggle("on", name ? button.textContent === name : Number(button.dataset.action) === shown.action);
}

function show() {
  const { plan } = play;
  document.title = plan.title;
  by("title").textContent = plan.title;
  by("about").textContent = [plan.card.description, plan.card.author, plan.card.license && `licence: ${plan.card.license}`].filter(Boolean).join(" · ");
  by("steps").max = Math.max(64, plan.sampler.steps);
  by("steps").value = plan.sampler.steps;
  by("temperature").value = Number(plan.sampler.temperature.toPrecision(6));
  const { frame: [width, height] } = plan;
  by("world").style.aspectRatio = `${width} / ${height}`;
  by("starts").replaceChildren(
    ...play.starts.map((address, i) => {
      const button = Object.assign(document.createElement("button"), { type: "button", onclick: () => reset(i) });
      const picture = Object.assign(document.createElement("img"), { src: address, alt: `start from ${plan.starts[i].name}`, title: plan.starts[i].name });
      button.append(picture);
      return button;
    }),
  );
  const named = (action) => plan.action_names?.[action] ?? (plan.actions ? `action ${action}` : "go on");
  // One button for each name, though several latent actions may share it. Directions lie as on a cross.
  const all = Array.from({ length: Math.max(plan.actions, 1) }, (_, action) => action);
  const shownActions = all.filter((action) => all.findIndex((other) => named(other) === named(action)) === action);
  const ways = ["Up", "Left", "Right", "Down"].filter((way) => plan.keys[`Arrow${way}`] !== undefined);
  by("actions").classList.toggle("cross", plan.action_names !== null && ways.length === 4);
  by("actions").replaceChildren(
    ...shownActions.map((action) => {
      const keys = Object.keys(plan.keys).filter((key) => plan.keys[key] === action).map((key) => ({ ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" })[key] ?? key.toUpperCase());
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: named(action), title: `keys: ${keys.join(" ")}` });
      button.dataset.action = action;
      for (const way of ways) if (plan.keys[`Arrow${way}`] === action) button.classList.add(way.toLowerCase());
      const release = () => (play.held = play.held.filter((held) => held !== action));
      button.onpointerdown = (event) => (event.preventDefault(), button.setPointerCapture(event.pointerId), press(action));
      button.onpointerup = button.onpointercancel = release;
      button.onclick = (event) => event.detail === 0 && step(action); // by Enter or a screen reader
      return button;
    }),
  );
  by("idle").replaceChildren(new Option("waits", ""), ...shownActions.map((action) => new Option(named(action), action)));
  by("controls").hidden = false;
}

// ---- keys, pictures, links, films ----

function press(action) {
  if (play.held.includes(action)) return;
  play.held.push(action);
  play.repeats = performance.now() + TAP;
  step(action);
}

const downKeys = new Map(); // place of a key that is down -> its action
const typing = (event) => /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";

addEventListener("keydown", (event) => {
  if (typing(event) || !play.plan) return;
  const action = actionOf(event, play.plan.keys);
  if (event.key === "Backspace") go(play.at - 1);
  else if (action !== undefined && !event.repeat) {
    downKeys.set(event.code, action);
    press(action);
  }
  if (event.key === "Backspace" || (action !== undefined && event.target.type !== "range")) event.preventDefault();
});
addEventListener("keyup", (event) => {
  const action = downKeys.get(event.code); // whatever is held beside it by now
  downKeys.delete(event.code);
  if (![...downKeys.values()].includes(action)) play.held = play.held.filter((held) => held !== action);
});
addEventListener("blur", () => (downKeys.clear(), (play.held = [])));
by("time").oninput = () => go(Number(by("time").value));
by("reset").onclick = () => reset(play.picture ?? play.start);
by("back").onclick = () => go(play.at - 1);
by("own").onchange = () => by("own").files[0] && reset(by("own").files[0]);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) reset(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) reset(file);
});

by("share").onclick = async () => {
  if (play.picture) return say("A link can hold a start picture of the world's own only.", true);
  if (play.forgotten) return say(`A link holds ${MOST_FRAMES} frames at most; start again to make one.`, true);
  const played = play.path.slice(1, play.at + 1), used = played.at(-1)?.sampler ?? sampler();
  const same = ({ sampler: s }) => s.steps === used.steps && s.temperature === used.temperature;
  if (!played.every(same)) return say("Steps or temperature changed on the way, which a link does not hold; start again to make one.", true);
  const text = packed({ start: play.start, seed: play.seed, sampler: used, actions: played.map((one) => one.action) });
  history.replaceState(null, "", `#${text}`);
  await navigator.clipboard?.writeText(location.href).catch(() => {});
  say("The address now holds what you played. Who opens it sees the same.");
};

function kept(blob, name) {
  const address = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

by("gif").onclick = async () => {
  if (!play.path.length || by("gif").disabled) return;
  by("gif").disabled = true;
  const frames = play.path.slice(0, play.at + 1).map(({ frame }) => frame), [width, height] = play.plan.frame;
  const progress = (done) => {
    say(`writing the GIF: frame ${done} of ${frames.length}`);
    return new Promise((go) => setTimeout(go)); // so that the page stays alive
  };
  try {
    const scale = frames.length > 150 ? 2 : 4; // a long one would be too large to share
    kept(new Blob([await gif(frames, width, height, { scale, delay: Math.round(100 / RATE), progress })], { type: "image/gif" }), "world.gif");
    say("");
  } catch (error) {
    say(`the GIF could not be written: ${error.message}`, true);
  }
  by("gif").disabled = false;
};

by("film").onclick = async () => {
  if (!globalThis.MediaRecorder || !play.path.length) return say("This browser cannot record.", true);
  const canvas = document.createElement("canvas"), { frame: [width, height] } = play.plan, by4 = 4;
  [canvas.width, canvas.height] = [by4 * width, by4 * height];
  const context = canvas.getContext("2d"), small = new OffscreenCanvas(width, height);
  context.imageSmoothingEnabled = false;
  const recorder = new MediaRecorder(canvas.captureStream(), { mimeType: "video/webm" }), parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => (kept(new Blob(parts, { type: "video/webm" }), "world.webm"), say(""));
  recorder.start();
  for (const [i, { frame }] of play.path.slice(0, play.at + 1).entries()) {
    small.getContext("2d").putImageData(new ImageData(frame, width, height), 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    say(`recording frame ${i} of ${play.at}`);
    await new Promise((done) => setTimeout(done, 1000 / RATE));
  }
  recorder.stop();
};

if ("serviceWorker" in navigator && location.protocol.startsWith("http")) navigator.serviceWorker.register("offline.mjs", { type: "module" }).catch(() => {});
begin().then(loop, (error) => say(error.message, true));
