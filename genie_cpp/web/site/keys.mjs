// From a pressed key to an action: by what it writes, else by its place on the keyboard, so that WASD are where they are
// on a Cyrillic, Greek or French one.

export function actionOf(event, keys) {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in keys) return keys[key];
  const place = /^Key([A-Z])$/.exec(event.code)?.[1].toLowerCase() ?? /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
  return /^[a-z]$/.test(key) ? undefined : keys[place];
}

// The action that a gamepad's cross or left stick asks for.
export function gamepadAction(keys, pads = navigator.getGamepads?.() ?? []) {
  for (const pad of pads) {
    if (!pad) continue;
    const [x, y] = pad.axes, on = (i) => pad.buttons[i]?.pressed;
    if (on(14) || x < -0.5) return keys.ArrowLeft;
    if (on(15) || x > 0.5) return keys.ArrowRight;
    if (on(12) || y < -0.5) return keys.ArrowUp;
    if (on(13) || y > 0.5) return keys.ArrowDown;
  }
  return undefined;
}
