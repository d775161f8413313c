// Which key asks for which latent action: the server's proposal, or the player's own, kept per model in this browser.

import { opened, remember, remembered } from "./dom.js";

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Enter: "⏎" };
const TAKEN = ["p", " ", ".", "backspace", "r", "b", "c", "f", "t", "n", "?", "Tab", "Escape", "Shift", "Control", "Alt", "Meta"].map((k) => k.toLowerCase());

// Letters without regard to Shift or Caps Lock.
export const keyOf = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);

// What a key is called by its place: of KeyD d, of Digit1 1. Layouts that write other letters are played by this.
export const placeOf = (event) => /^(?:Key|Digit)([A-Z0-9])$/.exec(event.code)?.[1].toLowerCase();
export const label = (key) => NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);

export class Keys {
  #place;
  #proposed;
  #waiting = null; // the action that the next key is for

  constructor(changed) {
    this.map = {};
    this.count = 0;
    this.names = []; // what the actions do, if the model says
    this.changed = changed;
    this.dialog = document.getElementById("keys-dialog");
    this.hint = document.getElementById("keys-hint");
    document.getElementById("keys-done").onclick = () => this.dialog.close();
    document.getElementById("keys-default").onclick = () => this.#set({ ...this.#proposed });
    this.dialog.addEventListener("keydown", (event) => this.#pressed(event));
    this.dialog.addEventListener("close", () => (this.#waiting = null));
  }

  open(world) {
    this.#place = `genie.keys.${world.name}`;
    this.#proposed = world.keys;
    this.count = world.actions;
    this.names = world.names;
    this.map = { ...world.keys };
    try {
      const kept = JSON.parse(remembered(this.#place, "null"));
      const right = kept && Object.values(kept).every((a) => Number.isInteger(a) && a >= 0 && a < this.count);
      if (right) this.map = kept;
    } catch {
      remember(this.#place, null);
    }
    this.#show();
    this.changed();
  }

  name(action) {
    return this.names[action] ? `${action}: ${this.names[action]}` : `${action}`;
  }

  of(action) {
    return Object.keys(this.map).filter((key) => this.map[key] === action);
  }

  edit() {
    this.#show();
    opened(this.dialog);
  }

  #set(map) {
    this.map = map;
    remember(this.#place, JSON.stringify(map));
    this.#waiting = null;
    this.#show();
    this.changed();
  }

  #pressed(event) {
    if (this.#waiting === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Tab" || event.key === "Shift") return;
    event.preventDefault();
    const key = keyOf(event), action = this.#waiting;
    if (event.key === "Escape") {
      this.#waiting = null;
      this.#show();
    } else if (TAKEN.includes(key.toLowerCase())) {
      this.hint.textContent = `${key === " " ? "Space" : label(key)} is a control already; press another key, or Escape.`;
    } else {
      this.#set({ ...this.map, [key]: action });
      this.dialog.querySelector(`[data-add="${action}"]`).focus();
    }
  }

  #show() {
    const list = document.getElementById("keys-list");
    this.hint.textContent =
      this.#waiting === null
        ? "Which key asks for which action is kept in this browser, for this model."
        : `Press the key for action ${this.#waiting}; Escape leaves it.`;
    list.replaceChildren(
      ...Array.from({ length: this.count }, (_, action) => {
        const row = document.createElement("div");
        row.className = "row";
        const name = Object.assign(document.createElement("span"), { className: "name", textContent: `Action ${this.name(action)}` });
        const caps = this.of(action).map((key) => {
          const button = Object.assign(document.createElement("button"), { type: "button", title: "Remove", textContent: `${label(key)} ×` });
          button.setAttribute("aria-label", `Remove ${label(key)} from action ${action}`);
          button.onclick = () => {
            const { [key]: _, ...rest } = this.map;
            this.#set(rest);
          };
          return button;
        });
        const add = Object.assign(document.createElement("button"), { type: "button", textContent: this.#waiting === action ? "press a key…" : "+ key" });
        add.dataset.add = action;
        add.classList.toggle("waiting", this.#waiting === action);
        add.onclick = () => {
          this.#waiting = action;
          this.#show();
          list.querySelector(`[data-add="${action}"]`).focus();
        };
        row.append(name, ...caps, add);
        return row;
      }),
    );
  }
}
