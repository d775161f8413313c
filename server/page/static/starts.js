// Where a world can start: its own pictures, the player's own, one at random, a drawing.

import { $, button, make, remember, remembered } from "./dom.js";
import { isSession, onFiles, prepared } from "./pictures.js";

export class Starts {
  #mine = []; // { key, blob }
  #addresses = [];

  constructor(store, game, shelf) {
    [this.store, this.game, this.shelf] = [store, game, shelf];
    store.watch(["world"], () => this.#show());
    $("choose").onclick = () => $("file").click();
    $("surprise").onclick = () => this.surprise();
    $("ground").value = remembered("genie.ground", "#ffffff");
    $("ground").onchange = () => remember("genie.ground", $("ground").value);
    for (const input of [$("file"), $("session-file")]) {
      input.onchange = () => {
        const [file] = input.files;
        input.value = "";
        if (file) this.take(file);
      };
    }
    onFiles((file) => this.take(file));
    this.#remembered();
  }

  // A picture or a session that a player brought.
  async take(file) {
    if (!this.store.state.world) return;
    const blob = await prepared(file, $("ground").value);
    await this.game.file(blob);
    $("screen").focus();
    const head = new Uint8Array(await blob.slice(0, 64).arrayBuffer());
    if (isSession(head) || this.game.lastStart?.blob !== blob) return; // no picture, or one that was refused
    try {
      await this.shelf.addPicture(blob);
      await this.#remembered();
    } catch {
      // this browser keeps nothing
    }
  }

  surprise() {
    const { world } = this.store.state, count = world?.starts.length ?? 0, all = count + this.#mine.length;
    if (!all) return $("file").click();
    const last = this.game.lastStart?.number;
    let number = Math.floor(Math.random() * all);
    if (all > 1 && number === last) number = (number + 1) % all;
    if (number < count) this.game.start(number);
    else this.game.file(this.#mine[number - count].blob);
    $("screen").focus();
  }

  async #remembered() {
    try {
      this.#mine = await this.shelf.pictures();
    } catch {
      this.#mine = [];
    }
    this.#show();
  }

  #show() {
    const { world } = this.store.state;
    for (const address of this.#addresses.splice(0)) URL.revokeObjectURL(address);
    const own = (world?.starts ?? []).map((name, number) => {
      const called = name.replace(/^start:/, "") || "the given picture";
      const query = new URLSearchParams({ world: world.name });
      const each = button({ title: called, data: { start: number } }, make("img", { src: `starts/${number}.png?${query}`, alt: "", loading: "lazy" }));
      each.setAttribute("aria-label", `Start from ${called}`);
      each.onclick = () => this.game.start(number).then(() => $("screen").focus());
      return make("li", {}, each);
    });
    const mine = this.#mine.map(({ key, blob }, number) => {
      const address = URL.createObjectURL(blob);
      this.#addresses.push(address);
      const each = button({ title: "Your own picture", data: { mine: key } }, make("img", { src: address, alt: "" }));
      each.setAttribute("aria-label", `Start from your picture ${number + 1}`);
      each.onclick = () => this.game.file(blob).then(() => $("screen").focus());
      const drop = button({ className: "drop", title: "Forget it", textContent: "×" });
      drop.setAttribute("aria-label", `Forget your picture ${number + 1}`);
      drop.onclick = () => this.shelf.dropPicture(key).then(() => this.#remembered());
      return make("li", {}, each, drop);
    });
    $("starts").replaceChildren(...own, ...mine);
    $("starts").hidden = !own.length && !mine.length;
  }
}
