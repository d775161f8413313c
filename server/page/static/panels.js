// Figures, settings and the row of controls.

import { $, make, plain, remember, remembered } from "./dom.js";
import { NO_LIMIT } from "./game.js";

const STAGES = {
  maskgit: ["MaskGIT", "The steps that fill in a frame's tokens, the surest first."],
  commit: ["commit", "One pass that takes the finished frame into the model's memory."],
  decode: ["decode", "Tokens become pixels."],
  window: ["window", "The memory is full, so its older half is dropped and the rest is read again."],
  restore: ["restore", "After going back: the world is set to that frame again."],
  keep: ["keep, PNG", "The frame is stored, so that you can come back to it."],
};

export function onPanels(store, game, keys) {
  const screen = $("screen");
  for (const [name, [words, why]] of Object.entries(STAGES)) {
    const meter = make("meter", { max: 1, data: { stage: name } }), output = make("output", { data: { stage: name } });
    meter.setAttribute("aria-label", words);
    $("stages").append(make("span", { textContent: words, title: why }), meter, output);
  }

  store.watch(["times", "latencies"], ({ times, latencies, frame }) => {
    const sorted = latencies.toSorted((a, b) => a - b);
    const rate = times.length > 1 ? (1000 * (times.length - 1)) / (times.at(-1) - times[0]) : null;
    $("fps").textContent = rate === null ? "–" : rate.toFixed(1);
    if (sorted.length) $("latency").replaceChildren(`${latencies.at(-1).toFixed(0)} ms `, make("small", { textContent: `median ${sorted[sorted.length >> 1].toFixed(0)}` }));
    if (!frame) return;
    const total = Object.values(frame.ms).reduce((sum, ms) => sum + ms, 0) || 1;
    for (const [name, ms] of Object.entries(frame.ms)) {
      $("stages").querySelector(`meter[data-stage="${name}"]`).value = ms / total;
      $("stages").querySelector(`output[data-stage="${name}"]`).textContent = `${ms.toFixed(1)} ms`;
    }
  });

  store.watch(["running", "recording", "frame", "rewinding"], ({ running, recording, frame, rewinding }) => {
    const state = $("state");
    state.textContent = recording && frame ? `recording, ${frame.depth - recording.depth + 1}` : running ? "" : "paused";
    state.classList.toggle("recording", Boolean(recording));
    $("pause").setAttribute("aria-pressed", !running);
    $("pause").querySelector("span").textContent = running ? "Pause" : "Go on";
    $("pause").querySelector("use").setAttribute("href", running ? "#i-pause" : "#i-play");
    $("record").setAttribute("aria-pressed", Boolean(recording));
    $("record").querySelector("span").textContent = recording ? "Stop" : "Record";
    $("rewind").classList.toggle("strong", rewinding);
  });

  store.watch(["message"], ({ message }) => {
    const box = $("message");
    box.hidden = !message;
    box.classList.toggle("alarm", Boolean(message?.alarm));
    box.setAttribute("role", message?.alarm ? "alert" : "status");
    box.replaceChildren(message?.text ?? "");
    if (!message?.button) return;
    const act = make("button", { type: "button", className: "link", textContent: message.button });
    act.onclick = () => Promise.resolve(message.act()).then(() => screen.focus());
    box.append(" ", act);
  });

  const show = () => {
    const { steps, temperature, seed, limit, world } = store.state;
    if (!world) return;
    $("steps").max = world.max_steps;
    $("temperature").max = Math.max(2, world.temperature);
    [$("steps").value, $("temperature").value, $("seed").value] = [steps, plain(temperature), seed];
    $("limit").value = limit;
    words();
  };
  const words = () => {
    $("steps-value").textContent = $("steps").value;
    $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
    $("limit-value").textContent = Number($("limit").value) === NO_LIMIT ? "no limit" : $("limit").value;
  };
  store.watch(["world", "steps", "temperature", "seed", "limit"], show);

  store.watch(["world"], ({ world }) => {
    if (!world) return;
    const action = (value) => make("option", { value, textContent: `action ${keys.name(value)}` });
    $("idle").replaceChildren(make("option", { value: "", textContent: "wait" }), ...Array.from({ length: world.actions }, (_, value) => action(value)));
    $("idle").value = remembered(`genie.idle.${world.name}`, "");
    store.set({ idle: $("idle").value === "" ? null : Number($("idle").value) });
  });
  $("idle").onchange = () => {
    remember(`genie.idle.${store.state.world.name}`, $("idle").value);
    store.set({ idle: $("idle").value === "" ? null : Number($("idle").value) });
    $("idle").blur();
  };

  const seed = () => Math.min(Math.max(Math.trunc(Number($("seed").value)) || 0, 0), 2 ** 32 - 1);
  $("reset").onclick = () => game.reset(seed());
  $("seed").onchange = () => game.reset(seed());
  $("seed").addEventListener("keydown", (event) => event.key === "Enter" && screen.focus()); // which also reports the change
  $("dice").onclick = () => game.reset(Math.floor(Math.random() * 2 ** 32));
  $("pause").onclick = () => game.pause();
  $("step").onclick = () => game.single();
  $("mark").onclick = () => game.bookmark();
  $("record").onclick = () => game.record();
  $("rewind").onpointerdown = (event) => ($("rewind").setPointerCapture(event.pointerId), game.rewind(true));
  $("rewind").onpointerup = $("rewind").onpointercancel = () => game.rewind(false);
  $("rewind").oncontextmenu = (event) => event.preventDefault();
  const pressed = (event) => event.key === " " || event.key === "Enter";
  $("rewind").addEventListener("keydown", (event) => pressed(event) && (event.preventDefault(), game.rewind(true)));
  $("rewind").addEventListener("keyup", (event) => pressed(event) && game.rewind(false));
  for (const id of ["steps", "temperature", "limit"]) $(id).oninput = words;
  for (const id of ["steps", "temperature"]) $(id).onchange = () => game.sampler(Number($("steps").value), Number($("temperature").value));
  $("limit").onchange = () => {
    remember("genie.limit", $("limit").value);
    store.set({ limit: Number($("limit").value) });
  };
  // With a mouse, the keys are the game's again as soon as a slider is let go, or after a click: Space would press the
  // button once more.
  for (const slider of document.querySelectorAll("main input[type=range]")) slider.onpointerup = () => screen.focus();
  addEventListener("click", (event) => event.detail && event.target.closest?.("main button, main a, header button") && screen.focus());
}
