// What a player does: keys, gamepads, swipes on the picture.

import { $ } from "./dom.js";
import { keyOf, placeOf } from "./keys.js";

const SWIPE = 24; // pixels until a finger's way counts
const STICK = 0.5;

// controls: key -> what it does, besides the actions of `keys`.
export function onKeys(game, keys, controls) {
  const down = new Map(); // code -> action

  // Sliders, lists and numbers use arrows and digits themselves; buttons use Space.
  const typing = (target, key) => target.matches?.("input, select, textarea") || (key === " " && target.matches?.("button, a"));

  addEventListener("keydown", (event) => {
    let key = keyOf(event);
    const known = (name) => name in keys.map || name in controls || name === "Backspace";
    if (!known(key) && known(placeOf(event))) key = placeOf(event);
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || typing(event.target, key)) return;
    const action = keys.map[key], control = controls[key];
    if (action === undefined && !control && key !== "Backspace") return;
    event.preventDefault();
    if (event.repeat) return;
    if (action !== undefined) {
      down.set(event.code, action);
      game.press(action, event.timeStamp);
    } else if (control) control();
    else game.rewind(true);
  });

  addEventListener("keyup", (event) => {
    if (event.key === "Backspace" && game.state.rewinding) game.rewind(false);
    if (!down.has(event.code)) return;
    const action = down.get(event.code);
    down.delete(event.code);
    if (![...down.values()].includes(action)) game.lift(action);
  });

  addEventListener("blur", () => {
    down.clear();
    game.release();
  });
  // A hidden tab does not go on by itself.
  addEventListener("visibilitychange", () => game.store.set({ hidden: document.hidden }));
}

// The direction of a movement, as an arrow key's name; null if it is too short.
export function wayOf(x, y, least) {
  if (Math.max(Math.abs(x), Math.abs(y)) < least) return null;
  if (Math.abs(x) > Math.abs(y)) return x < 0 ? "ArrowLeft" : "ArrowRight";
  return y < 0 ? "ArrowUp" : "ArrowDown";
}

// A finger on the picture holds the action of the way it went.
export function onSwipes(game, keys) {
  const screen = $("screen");
  let from = null, action = null;
  const end = () => {
    if (action !== null) game.lift(action);
    [from, action] = [null, null];
  };
  screen.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") return;
    from = [event.clientX, event.clientY];
    screen.setPointerCapture(event.pointerId);
  });
  screen.addEventListener("pointermove", (event) => {
    if (!from) return;
    const way = wayOf(event.clientX - from[0], event.clientY - from[1], SWIPE);
    const next = way === null ? null : (keys.map[way] ?? null);
    if (next === null || next === action) return;
    if (action !== null) game.lift(action);
    action = next;
    game.press(action, event.timeStamp);
    from = [event.clientX, event.clientY]; // from here on, another way is another swipe
  });
  screen.addEventListener("pointerup", end);
  screen.addEventListener("pointercancel", end);
}

// The standard gamepad: cross or left stick for directions, the four buttons for other actions, Start pauses, Select
// starts again, the left shoulder rewinds, the right one bookmarks.
export function onGamepads(game, keys, controls) {
  let held = new Set(), polling = false;
  const ways = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"];

  function actionsOf(pad) {
    const pressed = (i) => Boolean(pad.buttons[i]?.pressed), found = new Set();
    const [x, y] = [pad.axes[0] ?? 0, pad.axes[1] ?? 0];
    const stick = wayOf(x, y, STICK);
    ways.forEach((way, i) => (pressed(12 + i) || stick === way) && keys.map[way] !== undefined && found.add(`a${keys.map[way]}`));
    const directed = new Set(ways.map((way) => keys.map[way]));
    const others = Array.from({ length: keys.count }, (_, action) => action).filter((action) => !directed.has(action));
    for (let i = 0; i < 4; i++) if (pressed(i) && others[i] !== undefined) found.add(`a${others[i]}`);
    for (const [i, key] of [[9, "p"], [8, "r"], [5, "b"], [4, "rewind"]]) if (pressed(i)) found.add(key);
    return found;
  }

  function poll() {
    const pads = navigator.getGamepads().filter(Boolean);
    if (!pads.length) return (polling = false);
    const now = new Set(document.hidden || document.querySelector("dialog[open]") ? [] : pads.flatMap((pad) => [...actionsOf(pad)]));
    for (const what of now) {
      if (held.has(what)) continue;
      if (what === "rewind") game.rewind(true);
      else if (what[0] === "a") game.press(Number(what.slice(1)));
      else controls[what]();
    }
    for (const what of held) {
      if (now.has(what)) continue;
      if (what === "rewind") game.rewind(false);
      else if (what[0] === "a") game.lift(Number(what.slice(1)));
    }
    held = now;
    requestAnimationFrame(poll);
  }

  const begin = () => {
    if (polling || !navigator.getGamepads?.().some(Boolean)) return;
    polling = true;
    poll();
  };
  addEventListener("gamepadconnected", begin);
  begin();
}
