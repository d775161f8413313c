// Another world beside this one, by the same actions: another model, type of weights, seed or sampler. It has a
// connection of its own.

import { Connection } from "./connection.js";
import { $, make, plain } from "./dom.js";

export class Compare {
  #connection = null;
  #world = null;
  #pixels = null; // of its newest frame

  constructor(store, game, screen) {
    Object.assign(this, { store, game, screen });
    this.canvas = $("other");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    $("compare").onclick = () => (this.on ? this.end() : this.start());
    $("compare-shown").onchange = () => this.#draw();
    for (const id of ["compare-steps", "compare-temperature", "compare-seed"]) $(id).onchange = () => this.on && this.#again();
    $("compare-world").onchange = () => this.on && this.#again();
    store.watch(["hello", "world"], ({ hello, world }) => {
      if (hello) this.#worlds(hello, world);
      if (world && this.on && world.name !== this.of) this.end();
    });
    store.watch(["frame"], () => this.on && this.#draw());
    store.watch(["online"], ({ online }) => !online && this.on && this.end());
  }

  get on() {
    return this.#connection !== null;
  }

  #worlds(hello, world) {
    const before = $("compare-world").value;
    const here = hello.worlds.filter((other) => other.state === "here");
    $("compare-world").replaceChildren(...here.map((other) => make("option", { value: other.name, textContent: other.title })));
    $("compare-world").value = here.some((other) => other.name === before) ? before : (world?.name ?? hello.world);
  }

  async start() {
    const { world, frame, steps, temperature, seed } = this.store.state;
    if (!world || !frame) return;
    if ($("compare-steps").value === "") $("compare-steps").value = steps;
    if ($("compare-temperature").value === "") $("compare-temperature").value = plain(temperature);
    if ($("compare-seed").value === "") $("compare-seed").value = seed;
    this.of = world.name;
    this.#connection = new Connection("", () => this.end());
    $("compare").setAttribute("aria-pressed", true);
    $("compare").textContent = "Stop comparing";
    document.body.classList.add("comparing");
    this.game.followers = [this];
    try {
      await this.#connection.hello;
      await this.#again();
    } catch (error) {
      this.game.say(error.message);
      this.end();
    }
    this.screen.fit();
  }

  end() {
    this.#connection?.close();
    [this.#connection, this.#world, this.#pixels] = [null, null, null];
    this.game.followers = [];
    $("compare").setAttribute("aria-pressed", false);
    $("compare").textContent = "Compare";
    $("compare-says").textContent = "";
    document.body.classList.remove("comparing");
    this.screen.fit();
  }

  // Both start again, so that they have the same past.
  async #again() {
    this.#world = await this.#ask({ type: "world", name: $("compare-world").value });
    if (!this.#world) return;
    const { width, height } = this.#world;
    [this.canvas.width, this.canvas.height] = [width, height];
    const within = (id) => Math.min(Number($(id).max), Math.max(Number($(id).min), Number($(id).value) || 0));
    await this.#ask({ type: "settings", steps: Math.round(within("compare-steps")), temperature: within("compare-temperature") });
    const { lastStart } = this.game;
    await this.game.reset();
    if (!lastStart) await this.begin({ blob: this.store.state.frame?.picture });
  }

  // ---- what the game calls

  async begin(start) {
    const seed = Math.round(Number($("compare-seed").value)) || 0;
    const same = this.#world?.name === this.store.state.world?.name;
    if ("number" in start && same) return this.#take(await this.#ask({ type: "start", number: start.number, seed }));
    const blob = start.blob ?? this.store.state.frame.picture; // a picture of that other world: as this one sees it
    if (!(await this.#ask(blob))) return;
    this.#take(await this.#ask({ type: "reset", seed }));
  }

  async step(action) {
    if (this.#world) this.#take(await this.#ask({ type: "step", action: Math.min(action, Math.max(this.#world.actions, 1) - 1) }));
  }

  async seek(depth) {
    if (this.#world) this.#take(await this.#ask({ type: "seek", depth }));
  }

  async #ask(message) {
    try {
      return await this.#connection.send(message);
    } catch (error) {
      $("compare-says").textContent = error.message;
      return null;
    }
  }

  async #take(answer) {
    if (!answer?.picture) return;
    const bitmap = await createImageBitmap(answer.picture);
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.#pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.#draw();
  }

  #draw() {
    const theirs = this.#pixels;
    if (!theirs) return;
    const { canvas, context } = this.screen;
    if (canvas.width !== theirs.width || canvas.height !== theirs.height) {
      $("compare-says").textContent = "Their pictures have other sizes.";
      return;
    }
    const ours = context.getImageData(0, 0, canvas.width, canvas.height);
    const { decibels, difference } = compared(ours.data, theirs.data);
    $("compare-says").textContent = decibels === Infinity ? "The same picture." : `${decibels.toFixed(1)} dB (PSNR) apart.`;
    const shown = $("compare-shown").value === "difference" ? new ImageData(difference, theirs.width) : theirs;
    this.context.putImageData(shown, 0, 0);
  }
}

// How alike two pictures are (RGBA bytes), and a picture of where they differ, four times as strong.
export function compared(a, b) {
  const difference = new Uint8ClampedArray(a.length);
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    if (i % 4 === 3) {
      difference[i] = 255;
      continue;
    }
    const d = Math.abs(a[i] - b[i]);
    sum += d * d;
    difference[i] = 4 * d;
  }
  const mean = sum / ((a.length / 4) * 3);
  return { decibels: mean ? 10 * Math.log10((255 * 255) / mean) : Infinity, difference };
}
