// A button per action. Where the actions are directions, a cross for thumbs.

import { $, button, make } from "./dom.js";
import { label } from "./keys.js";

const WAYS = { ArrowUp: "up", ArrowLeft: "left", ArrowRight: "right", ArrowDown: "down" };

export class Pad {
  constructor(store, game, keys) {
    [this.store, this.game, this.keys] = [store, game, keys];
    store.watch(["held"], ({ held }) => {
      for (const each of $("pad").children) each.classList.toggle("held", held.includes(Number(each.dataset.action)));
    });
  }

  show() {
    const { keys } = this;
    const ways = Object.entries(WAYS).filter(([key]) => key in keys.map).map(([key, way]) => [keys.map[key], way]);
    const cross = new Map(ways.length >= 3 ? ways : []);
    // A thumb needs no second button for what the cross does already.
    const twin = (action) => !cross.has(action) && [...cross.keys()].some((other) => keys.names[other] && keys.names[other] === keys.names[action]);
    const buttons = Array.from({ length: keys.count }, (_, action) => this.#button(action, cross.get(action), twin(action)));
    $("pad").replaceChildren(...buttons);
    $("pad").classList.toggle("cross", cross.size > 0);
    $("pad").style.setProperty("--columns", Math.ceil(keys.count / Math.ceil(keys.count / 9))); // rows of equal length
    const caps = (action) => keys.of(action).flatMap((key) => [make("kbd", { textContent: label(key) }), " "]);
    const rows = buttons.map((_, action) =>
      make("tr", {}, make("td", {}, ...caps(action)), make("td", { textContent: `action ${keys.name(action)}` })),
    );
    $("help-keys").replaceChildren(...rows);
  }

  #button(action, way, twin) {
    const { keys, game } = this;
    const caps = make("span", { className: "caps" }, ...keys.of(action).map((key) => make("kbd", { textContent: label(key) })));
    const each = button({ data: { action, ...(way && { way }), ...(twin && { twin }) } }, make("span", { className: "name", textContent: keys.names[action] ?? action }), caps);
    each.setAttribute("aria-label", `Action ${keys.name(action)}`);
    each.onpointerdown = (event) => {
      if (event.button) return;
      each.setPointerCapture(event.pointerId);
      game.press(action, event.timeStamp);
    };
    each.onpointerup = each.onpointercancel = () => game.lift(action);
    each.oncontextmenu = (event) => event.preventDefault();
    // Enter on a focused button is a click without a pointer.
    each.onclick = (event) => {
      if (event.detail) return;
      game.press(action, event.timeStamp);
      game.lift(action);
    };
    return each;
  }
}
