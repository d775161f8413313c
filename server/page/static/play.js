// The page: input to actions, actions to frames, and everything around them.

import { Connection } from "./connection.js";
import { Drawing } from "./draw.js";
import { onFiles } from "./files.js";
import { Keys, keyOf, label, placeOf } from "./keys.js";
import { Timeline } from "./timeline.js";
import "./theme.js";

const REWIND_PAUSE = 45; // ms between frames going back
const NO_LIMIT = 61; // the last notch of the slider
const TAP = 180; // ms: a key held for less asks for one frame

const $ = (id) => document.getElementById(id);
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const plain = (x) => Number(x.toPrecision(6)); // a float32 such as 0.1, as it was meant
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const screen = $("screen"), context = screen.getContext("2d", { willReadFrequently: true });

let connection, hello, world, frame; // frame: the newest answer with a picture
let openings = 0; // models asked for so far
let trees = 0; // paths begun so far: frames are numbered anew in each
let showing = Promise.resolve(); // pictures decode on their own time, but are drawn in order
let running = true, rewinding = false, seeking = null, once = false;
let held = []; // actions of keys and buttons that are down, the newest last
let tapped = null; // an action whose key may be up again before its step could begin
let repeats = 0; // the time from which the held action goes on
let lastAction = 0;
let pressed = null; // when the key went down whose frame is awaited
let recording = null; // { id, depth } of its first frame
let times = [], latencies = []; // of the newest frames and keys
let wake = () => {};

const keys = new Keys(showPad);
const timeline = new Timeline((depth) => ((seeking = depth), wake()));
const drawing = new Drawing(startFrom);

// ---- the connection

async function connect() {
  connection?.close();
  veil("Connecting…");
  connection = new Connection((why) => {
    [frame, recording] = [null, null]; // nothing to step from
    veil(`The connection is closed${why ? `: ${why}` : "."}`, "Connect again", connect);
  });
  try {
    hello = await connection.hello;
    $("model").replaceChildren(...hello.models.map((m, value) => make("option", { value, textContent: m.name })));
    $("model").disabled = hello.models.length < 2;
    timeline.address = (id) => `/sessions/${hello.session}/frames/${id}.png?of=${trees}`;
    pause(false); // what went wrong may have paused it
    await open(0);
  } catch (error) {
    say(error);
  }
}

// Ask; what goes wrong is shown, and the answer is then null.
async function ask(message) {
  const asked = world;
  try {
    const answer = await connection.send(message);
    answer.world = asked;
    $("message").hidden = true;
    return answer;
  } catch (error) {
    say(error);
    return null;
  }
}

function say(error) {
  $("message").textContent = error.message;
  $("message").hidden = false;
}

async function open(index) {
  release();
  [world, frame, recording] = [null, null, null]; // no step of the last world may follow this message
  const mine = ++openings;
  const answer = await ask({ type: "model", index });
  if (!answer || mine !== openings) return; // or yet another was chosen in the meantime
  [world, frame] = [answer, null];
  trees++;
  $("model").value = index;
  $("about").textContent = world.about;
  [screen.width, screen.height] = [world.width, world.height];
  timeline.clear();
  for (const id of ["marks", "recordings"]) $(id).replaceChildren();
  [$("no-marks").hidden, $("no-recordings").hidden] = [false, false];
  $("steps").max = world.max_steps;
  [$("steps").value, $("temperature").value] = [world.steps, plain(world.temperature)];
  $("temperature").max = Math.max(2, world.temperature);
  keys.open(world);
  $("idle").replaceChildren(
    make("option", { value: "", textContent: "wait" }),
    ...Array.from({ length: world.actions }, (_, value) => make("option", { value, textContent: `action ${keys.name(value)}` })),
  );
  $("idle").value = localStorage.getItem(`genie.idle.${world.name}`) ?? "";
  lastAction = 0;
  showSettings();
  fitScreen();
  if (world.prompt) await reset();
  else veil("Drop a picture here to start a world from it.", "Choose a picture", () => $("file").click());
}

// ---- the game

async function reset() {
  stopRecording();
  const seed = Math.min(Math.max(Math.trunc(Number($("seed").value)) || 0, 0), 2 ** 32 - 1);
  $("seed").value = seed;
  await show(await ask({ type: "reset", seed }));
}

// From a picture, or on from a saved session.
async function startFrom(blob) {
  if (!world) return;
  if (blob.size > hello.limits.picture_bytes) {
    say(new Error(`the file has ${(blob.size / 1024).toFixed(0)} KiB; ${(hello.limits.picture_bytes / 1024).toFixed(0)} are the limit`));
    return;
  }
  stopRecording();
  const before = frame;
  let answer = await ask(blob);
  frame = answer?.type === "replay" ? null : frame; // nothing is stepped while a session is opened
  while (answer?.type === "replay") {
    veil(`Opening the session: frame ${answer.done} of ${answer.total}`);
    answer = await ask({ type: "replay" });
  }
  if (!answer && before && !frame) [frame, $("veil").hidden] = [before, true];
  if (answer?.bookmarks) {
    trees++;
    showOpened(answer);
  }
  await show(answer);
  screen.focus();
}

function showOpened(answer) {
  for (const id of ["marks", "recordings"]) $(id).replaceChildren();
  for (const [id, depth] of answer.bookmarks) addMark(id, depth);
  [$("no-marks").hidden, $("no-recordings").hidden] = [answer.bookmarks.length > 0, false];
  [$("steps").value, $("temperature").value, $("seed").value] = [answer.steps, plain(answer.temperature), answer.seed];
  showSettings();
  if (answer.drifted) say(new Error(`${answer.drifted} frames came out otherwise: the session was played on another kind of CPU`));
}

function show(answer) {
  showing = showing.then(() => draw(answer));
  return showing;
}

async function draw(answer) {
  if (!answer) return;
  const bitmap = await createImageBitmap(answer.picture);
  if (answer.world !== world || !connection.open) return; // another model was chosen in the meantime, or the end came
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  frame = answer;
  $("veil").hidden = true;
  timeline.update(frame);
  if (recording && frame.depth < recording.depth) recording = { id: frame.id, depth: frame.depth };
  showState();
  wake();
}

async function loop() {
  for (;;) {
    const idle = $("idle").value === "" || document.hidden ? null : Number($("idle").value);
    const waits = repeats - performance.now();
    const action = tapped ?? (waits > 0 ? undefined : held.at(-1)) ?? idle;
    if (!frame || document.querySelector("dialog[open]")) {
      await new Promise((done) => (wake = done));
    } else if (seeking !== null) {
      const depth = seeking;
      seeking = null;
      await show(await ask({ type: "seek", depth }));
    } else if (rewinding) {
      if (frame.depth > timeline.first) await show(await ask({ type: "seek", depth: frame.depth - 1 }));
      await sleep(REWIND_PAUSE);
    } else if (once || (running && action !== null)) {
      await step(once && action === null ? lastAction : action);
    } else {
      await new Promise((done) => {
        wake = done;
        if (held.length && waits > 0) setTimeout(done, waits);
      });
    }
  }
}

async function step(action) {
  const started = performance.now(), key = pressed;
  [tapped, once, pressed] = [null, false, null];
  lastAction = action;
  const answer = await ask({ type: "step", action });
  if (!answer) {
    release(); // an error is not repeated for as long as the key is down
    pause(true);
    return;
  }
  await show(answer);
  if (frame !== answer) return;
  const now = performance.now();
  if (key !== null) latencies = [...latencies.slice(-19), now - key];
  times = [...times.filter((t) => now - t < 2000), now].slice(-60);
  showSpeed();
  const limit = Number($("limit").value);
  if (limit < NO_LIMIT) await sleep(Math.max(0, 1000 / limit - (now - started)));
}

function press(action, when) {
  if (held.includes(action)) return;
  // Between two keys there is no pause.
  if (!held.length) repeats = performance.now() + TAP;
  held.push(action);
  [tapped, pressed] = [running ? action : null, running ? when : null];
  if (!running) lastAction = action;
  showHeld();
  wake();
}

function lift(action) {
  held = held.filter((other) => other !== action);
  showHeld();
}

function release() {
  [held, tapped, pressed, rewinding] = [[], null, null, false];
  downKeys.clear();
  showHeld();
}

function pause(value = running) {
  running = !value;
  [tapped, pressed] = [null, null];
  showState();
  wake();
}

function rewind(on) {
  rewinding = on;
  $("rewind").classList.toggle("strong", on);
  wake();
}

// ---- bookmarks and recordings

async function bookmark() {
  if (!frame) return;
  const mark = await ask({ type: "bookmark" });
  if (mark && !$("marks").querySelector(`[data-id="${mark.id}"]`)) addMark(mark.id, mark.depth);
}

function addMark(id, depth) {
  const item = make("li", {}), go = make("button", { type: "button", className: "go", title: `Go to frame ${depth}` });
  const drop = make("button", { type: "button", className: "drop", title: "Remove", textContent: "×" });
  go.setAttribute("aria-label", `Go to bookmark, frame ${depth}`);
  drop.setAttribute("aria-label", `Remove bookmark, frame ${depth}`);
  go.append(make("img", { src: timeline.address(id), alt: "" }));
  go.onclick = async () => {
    stopRecording();
    await show(await ask({ type: "goto", id }));
    screen.focus();
  };
  drop.onclick = async () => {
    await ask({ type: "forget", id });
    item.remove();
    $("no-marks").hidden = $("marks").children.length > 0;
  };
  item.dataset.id = id;
  item.append(go, drop, `${depth}`);
  $("marks").append(item);
  $("no-marks").hidden = true;
}

function record() {
  if (!frame) return;
  if (recording) stopRecording();
  else recording = { id: frame.id, depth: frame.depth };
  showState();
}

function stopRecording() {
  if (!recording || !frame) return;
  const { id, depth } = recording, limit = Number($("limit").value);
  recording = null;
  const fps = Math.max(1, Math.min(50, limit === NO_LIMIT ? Math.round(rate()) || 10 : limit));
  const item = make("li", { textContent: `Frames ${depth} to ${frame.depth}` });
  for (const kind of ["GIF", "WebP", "MP4"].filter((name) => hello.recordings.includes(name.toLowerCase()))) {
    const query = new URLSearchParams({ first: id, last: frame.id, fps, scale: Math.max(1, Math.min(8, Math.round(256 / world.width))) });
    item.append(make("a", { href: `/sessions/${hello.session}/recording.${kind.toLowerCase()}?${query}`, download: "", textContent: kind }));
  }
  $("recordings").prepend(item);
  $("no-recordings").hidden = true;
  showState();
}

// ---- what is seen

function rate() {
  return times.length > 1 ? (1000 * (times.length - 1)) / (times.at(-1) - times[0]) : 0;
}

function showSpeed() {
  const sorted = latencies.toSorted((a, b) => a - b);
  $("fps").textContent = times.length > 1 ? rate().toFixed(1) : "–";
  if (sorted.length) $("latency").innerHTML = `${latencies.at(-1).toFixed(0)} ms <small>median ${sorted[sorted.length >> 1].toFixed(0)}</small>`;
  const names = { maskgit: "MaskGIT", commit: "commit", decode: "decode", window: "window", restore: "restore", keep: "keep, PNG" };
  const total = Object.values(frame.ms).reduce((sum, ms) => sum + ms, 0) || 1;
  if (!$("stages").children.length) {
    for (const [name, text] of Object.entries(names)) {
      const meter = make("meter", { max: 1 }), output = make("output", {});
      meter.setAttribute("aria-label", text);
      [meter.dataset.stage, output.dataset.stage] = [name, name];
      $("stages").append(make("span", { textContent: text }), meter, output);
    }
  }
  for (const [name, ms] of Object.entries(frame.ms)) {
    $("stages").querySelector(`meter[data-stage="${name}"]`).value = ms / total;
    $("stages").querySelector(`output[data-stage="${name}"]`).textContent = `${ms.toFixed(1)} ms`;
  }
}

function showState() {
  const state = $("state");
  state.textContent = recording ? `recording, ${frame.depth - recording.depth + 1}` : running ? "" : "paused";
  state.classList.toggle("recording", Boolean(recording));
  $("pause").setAttribute("aria-pressed", !running);
  $("pause").querySelector("span").textContent = running ? "Pause" : "Go on";
  $("pause").querySelector("use").setAttribute("href", running ? "#i-pause" : "#i-play");
  $("record").setAttribute("aria-pressed", Boolean(recording));
  $("record").querySelector("span").textContent = recording ? "Stop" : "Record";
}

function showSettings() {
  $("steps-value").textContent = $("steps").value;
  $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
  $("limit-value").textContent = Number($("limit").value) === NO_LIMIT ? "no limit" : $("limit").value;
}

function showPad() {
  const buttons = Array.from({ length: keys.count }, (_, action) => {
    const button = make("button", { type: "button" }), caps = make("span", { className: "caps" });
    button.dataset.action = action;
    button.setAttribute("aria-label", `Action ${keys.name(action)}`);
    caps.append(...keys.of(action).map((key) => make("kbd", { textContent: label(key) })));
    button.append(make("span", { className: "name", textContent: keys.names[action] ?? action }), caps);
    button.onpointerdown = (event) => {
      if (event.button) return;
      button.setPointerCapture(event.pointerId);
      press(action, event.timeStamp);
    };
    button.onpointerup = button.onpointercancel = () => lift(action);
    button.oncontextmenu = (event) => event.preventDefault();
    // Enter on a focused button is a click without a pointer.
    button.onclick = (event) => {
      if (event.detail) return;
      press(action, event.timeStamp);
      lift(action);
    };
    return button;
  });
  $("pad").replaceChildren(...buttons);
  $("pad").style.setProperty("--columns", Math.ceil(keys.count / Math.ceil(keys.count / 9))); // rows of equal length
  const rows = buttons.map((button, action) => {
    const row = make("tr", {}), cell = make("td", {});
    cell.append(...keys.of(action).flatMap((key) => [make("kbd", { textContent: label(key) }), " "]));
    row.append(cell, make("td", { textContent: `action ${keys.name(action)}` }));
    return row;
  });
  $("help-keys").replaceChildren(...rows);
}

function showHeld() {
  for (const button of document.querySelectorAll("#pad button")) button.classList.toggle("held", held.includes(Number(button.dataset.action)));
}

function veil(text, button = "", act = null) {
  $("veil-text").textContent = text;
  $("veil-button").textContent = button;
  $("veil-button").hidden = !button;
  $("veil-button").onclick = act;
  $("veil").hidden = false;
}

// A whole number of the display's pixels per pixel of the world.
function fitScreen() {
  const box = $("frame"), ratio = devicePixelRatio || 1;
  box.style.setProperty("--tall", screen.height / screen.width);
  const most = Math.min((box.clientWidth * ratio) / screen.width, (box.clientHeight * ratio) / screen.height);
  const scale = (most >= 1 ? Math.floor(most) : most) / ratio;
  screen.style.width = `${screen.width * scale}px`;
  screen.style.height = `${screen.height * scale}px`;
}

// ---- input

const downKeys = new Map(); // key -> its action
const CONTROLS = { p: pause, " ": pause, ".": single, r: resetByKey, b: bookmark, c: record, "?": help };

// R lies beside W: it takes a second press to throw a path away.
let resets = -Infinity;
function resetByKey() {
  const now = performance.now(), sure = now - resets < 3000 || !frame || frame.last < 2;
  resets = sure ? -Infinity : now;
  if (sure) return reset();
  say(new Error("Press R again to start over; the path is lost then."));
}

function single() {
  once = true;
  wake();
}

function help() {
  $("help-dialog").showModal();
}

// Sliders, lists and numbers use arrows and digits themselves; buttons use Space.
function typing(target, key) {
  return target.matches?.("input, select, textarea") || (key === " " && target.matches?.("button, a"));
}

addEventListener("keydown", (event) => {
  let key = keyOf(event);
  const known = (name) => name in keys.map || name in CONTROLS || name === "Backspace";
  if (!known(key) && known(placeOf(event))) key = placeOf(event);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || typing(event.target, key)) return;
  const action = keys.map[key], control = CONTROLS[key];
  if (action === undefined && !control && key !== "Backspace") return;
  event.preventDefault();
  if (event.repeat) return;
  if (action !== undefined) {
    downKeys.set(event.code, action);
    press(action, event.timeStamp);
  } else if (control) control();
  else rewind(true);
});

addEventListener("keyup", (event) => {
  if (event.key === "Backspace" && rewinding) rewind(false);
  if (!downKeys.has(event.code)) return;
  const action = downKeys.get(event.code);
  downKeys.delete(event.code);
  if (![...downKeys.values()].includes(action)) lift(action);
});

addEventListener("blur", () => (release(), rewind(false)));
addEventListener("visibilitychange", () => wake()); // a hidden tab does not go on by itself
// With a mouse, the keys are the game's again after a click: Space would press the button once more.
addEventListener("click", (event) => event.detail && event.target.closest?.("main button, main a, header button") && screen.focus());

$("reset").onclick = reset;
$("seed").addEventListener("keydown", (event) => event.key === "Enter" && screen.focus()); // which also reports the change
$("pause").onclick = () => pause();
$("step").onclick = single;
$("mark").onclick = bookmark;
$("record").onclick = record;
$("rewind").onpointerdown = (event) => ($("rewind").setPointerCapture(event.pointerId), rewind(true));
$("rewind").onpointerup = $("rewind").onpointercancel = () => rewind(false);
$("rewind").oncontextmenu = (event) => event.preventDefault();
$("rewind").addEventListener("keydown", (event) => {
  if (event.key !== " " && event.key !== "Enter") return;
  event.preventDefault();
  rewind(true);
});
$("rewind").addEventListener("keyup", (event) => (event.key === " " || event.key === "Enter") && rewind(false));
$("help-button").onclick = help;
$("help-done").onclick = () => $("help-dialog").close();
$("keys-button").onclick = () => keys.edit();
$("draw-button").onclick = () => world && drawing.open(screen);
$("choose").onclick = () => $("file").click();
$("dice").onclick = () => (($("seed").value = Math.floor(Math.random() * 2 ** 32)), reset());
$("seed").onchange = reset;
$("model").onchange = async () => {
  await open(Number($("model").value));
  screen.focus();
};
$("idle").onchange = () => (localStorage.setItem(`genie.idle.${world.name}`, $("idle").value), $("idle").blur(), wake());
$("save").onclick = () => frame && make("a", { href: `/sessions/${hello.session}/session.genie`, download: "" }).click();
$("open").onclick = () => $("session-file").click();
for (const input of [$("file"), $("session-file")]) {
  input.onchange = () => {
    const [file] = input.files;
    input.value = "";
    if (file) startFrom(file);
  };
}
for (const id of ["steps", "temperature", "limit"]) $(id).oninput = showSettings;
for (const id of ["steps", "temperature"]) {
  $(id).onchange = () => ask({ type: "settings", steps: Number($("steps").value), temperature: Number($("temperature").value) });
}
$("limit").value = localStorage.getItem("genie.limit") ?? 20;
$("limit").onchange = () => localStorage.setItem("genie.limit", $("limit").value);
// With a mouse, the keys are the game's again as soon as a slider is let go.
for (const slider of document.querySelectorAll("main input[type=range]")) slider.onpointerup = () => screen.focus();
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", () => (screen.focus(), wake()));

onFiles(startFrom);

new ResizeObserver(fitScreen).observe($("frame"));
screen.focus();
connect();
loop();
