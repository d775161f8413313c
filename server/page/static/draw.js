// A small paper to draw a first frame on, in the model's own pixels.

const BLANK = ["#000000", "#ffffff", "#e63946", "#f4a261", "#f2d14b", "#57a773", "#2a9d8f", "#3b82f6", "#264653", "#7b5ea7", "#8d6346", "#888888"];

export class Drawing {
  #undo = [];
  #colour = "#000000";
  #last = null;
  #cursor = [0, 0];

  constructor(done) {
    const by = (id) => document.getElementById(id);
    this.dialog = by("draw-dialog");
    this.paper = by("paper");
    this.context = this.paper.getContext("2d", { willReadFrequently: true });
    this.fill = by("draw-fill");
    this.brush = by("brush");
    by("draw-cancel").onclick = () => this.dialog.close();
    by("draw-undo").onclick = () => this.#back();
    by("draw-clear").onclick = () => this.#whole(() => this.#clear());
    by("draw-copy").onclick = () => this.#whole(() => this.context.drawImage(this.frame, 0, 0));
    by("draw-play").onclick = () => this.paper.toBlob((blob) => (this.dialog.close(), done(blob)), "image/png");
    by("colour").oninput = (event) => this.#choose(event.target.value);
    this.fill.onclick = () => this.fill.setAttribute("aria-pressed", this.fill.getAttribute("aria-pressed") !== "true");
    this.brush.oninput = () => (by("brush-value").textContent = this.brush.value);
    this.paper.onpointerdown = (event) => this.#down(event);
    this.paper.onpointermove = (event) => this.#last && this.#stroke(this.#place(event));
    this.paper.onpointerup = this.paper.onpointercancel = () => (this.#last = null);
    this.paper.onkeydown = (event) => this.#key(event);
  }

  // frame: the canvas that shows the world; its colours are those the model knows.
  open(frame) {
    this.frame = frame;
    const { width, height } = frame;
    if (this.paper.width !== width || this.paper.height !== height || !this.#undo.length) {
      [this.paper.width, this.paper.height] = [width, height];
      this.#undo = [];
      this.#cursor = [width >> 1, height >> 1];
    }
    const palette = distinct([...common(frame), ...BLANK].map(parts)).slice(0, 12).map(hex);
    if (!this.#undo.length) {
      this.#choose(palette[0]);
      this.#clear();
    }
    const swatches = palette.map((colour) => {
      const button = Object.assign(document.createElement("button"), { type: "button", title: colour });
      button.setAttribute("aria-label", `Colour ${colour}`);
      button.style.backgroundColor = colour;
      button.dataset.colour = colour;
      button.onclick = () => this.#choose(colour);
      return button;
    });
    document.getElementById("colours").replaceChildren(...swatches);
    this.#choose(palette[1]);
    this.dialog.showModal();
    this.paper.focus();
  }

  #choose(colour) {
    this.#colour = colour;
    document.getElementById("colour").value = colour;
    for (const button of document.querySelectorAll("#colours button")) button.setAttribute("aria-pressed", button.dataset.colour === colour);
  }

  #clear() {
    this.context.fillStyle = this.#colour;
    this.context.fillRect(0, 0, this.paper.width, this.paper.height);
  }

  #keep() {
    this.#undo.push(this.context.getImageData(0, 0, this.paper.width, this.paper.height));
    if (this.#undo.length > 50) this.#undo.shift();
  }

  #whole(change) {
    this.#keep();
    change();
  }

  #back() {
    const before = this.#undo.pop();
    if (before) this.context.putImageData(before, 0, 0);
  }

  #place(event) {
    const box = this.paper.getBoundingClientRect();
    return [
      Math.floor(((event.clientX - box.left) / box.width) * this.paper.width),
      Math.floor(((event.clientY - box.top) / box.height) * this.paper.height),
    ];
  }

  #down(event) {
    event.preventDefault();
    this.paper.focus();
    this.paper.setPointerCapture(event.pointerId);
    this.#keep();
    const place = (this.#last = this.#place(event));
    if (this.fill.getAttribute("aria-pressed") === "true") {
      this.#last = null;
      this.#flood(place);
    } else {
      this.#stroke(place);
    }
  }

  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way && event.key !== " ") return;
    event.preventDefault();
    const size = Number(this.brush.value);
    const limit = (value, most) => Math.min(Math.max(value, 0), most - 1);
    if (way) {
      this.#cursor = [limit(this.#cursor[0] + way[0] * size, this.paper.width), limit(this.#cursor[1] + way[1] * size, this.paper.height)];
    } else {
      this.#keep();
      this.#dot(this.#cursor);
    }
    this.paper.setAttribute("aria-label", `Paper, brush at column ${this.#cursor[0]}, row ${this.#cursor[1]}. Arrow keys move, Space paints.`);
  }

  #dot([x, y]) {
    const size = Number(this.brush.value), half = Math.floor(size / 2);
    this.context.fillStyle = this.#colour;
    this.context.fillRect(x - half, y - half, size, size);
  }

  // Squares along a line, not a smoothed stroke: every pixel keeps the chosen colour.
  #stroke(to) {
    const [x, y] = this.#last, count = Math.max(Math.abs(to[0] - x), Math.abs(to[1] - y), 1);
    for (let i = 0; i <= count; i++) this.#dot([Math.round(x + ((to[0] - x) * i) / count), Math.round(y + ((to[1] - y) * i) / count)]);
    this.#last = to;
  }

  #flood([x, y]) {
    const { width, height } = this.paper, image = this.context.getImageData(0, 0, width, height);
    const cells = new Uint32Array(image.data.buffer), old = cells[y * width + x];
    const [r, g, b] = parts(this.#colour);
    const made = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    const open = old === made ? [] : [y * width + x];
    while (open.length) {
      const cell = open.pop();
      if (cells[cell] !== old) continue;
      cells[cell] = made;
      if (cell % width) open.push(cell - 1);
      if ((cell + 1) % width) open.push(cell + 1);
      if (cell >= width) open.push(cell - width);
      if (cell < width * (height - 1)) open.push(cell + width);
    }
    this.context.putImageData(image, 0, 0);
  }
}

const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const hex = (rgb) => `#${rgb.map((v) => v.toString(16).padStart(2, "0")).join("")}`;

// Those that differ enough from all before them to be told apart.
function distinct(colours) {
  const found = [];
  for (const rgb of colours) {
    if (found.every((other) => rgb.some((v, i) => Math.abs(v - other[i]) > 28))) found.push(rgb);
  }
  return found;
}

// A frame's colours, the commonest first, eight at most.
function common(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const key = hex([data[at], data[at + 1], data[at + 2]]);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const ranked = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 1000);
  return distinct(ranked.map(([key]) => parts(key))).slice(0, 8).map(hex);
}
