// Small helpers for the document.

export const $ = (id) => document.getElementById(id);

// An element with properties, data-… values and children.
export function make(tag, { data = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

export const button = (properties, ...children) => make("button", { type: "button", ...properties }, ...children);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const plain = (x) => Number(x.toPrecision(6)); // a float32 such as 0.1, as it was meant
export const named = (bytes) => (bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`);

// Settings of this browser; without storage (a private window) they last as long as the page.
export function remembered(name, otherwise) {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // nothing to do: it is not remembered
  }
}

// A dialog, opened at its top: by itself it would scroll to its first control. The first Tab leads there.
export function opened(dialog) {
  dialog.showModal();
  dialog.focus({ preventScroll: true });
  dialog.scrollTop = 0;
}
