// Writes GIF89a. One palette for all frames: their own colours if there are at most 256, else medians of boxes of colours.

const MOST = 256;

// frames: RGBA [height * width * 4] each. Pixels become squares of `scale`; delay: hundredths of a second. progress(frames
// done) may return a promise, so that a page stays alive. Returns the bytes.
export async function gif(frames, width, height, { scale = 1, delay = 10, progress = () => {} } = {}) {
  const colours = palette(frames), number = numbers(colours);
  const [w, h] = [width * scale, height * scale], out = new Bytes();
  out.add(71, 73, 70, 56, 57, 97, w & 255, w >> 8, h & 255, h >> 8, 0xf7, 0, 0); // GIF89a, a global table of 256
  for (let i = 0; i < MOST; i++) out.add(...(colours[i] ?? [0, 0, 0]));
  out.add(0x21, 0xff, 11, ...new TextEncoder().encode("NETSCAPE2.0"), 3, 1, 0, 0, 0); // for ever
  const indices = new Uint8Array(w * h);
  for (const [done, frame] of frames.entries()) {
    for (let y = 0, at = 0; y < h; y++)
      for (let x = 0, row = Math.floor(y / scale) * width; x < w; x++) {
        const from = 4 * (row + Math.floor(x / scale));
        indices[at++] = number(frame[from], frame[from + 1], frame[from + 2]);
      }
    out.add(0x21, 0xf9, 4, 0, delay & 255, delay >> 8, 0, 0); // how long it stays
    out.add(0x2c, 0, 0, 0, 0, w & 255, w >> 8, h & 255, h >> 8, 0, 8);
    compress(indices, out);
    await progress(done + 1);
  }
  out.add(0x3b);
  return out.all();
}

class Bytes {
  #held = new Uint8Array(1 << 16);
  #size = 0;

  add(...values) {
    if (this.#size + values.length > this.#held.length) {
      const more = new Uint8Array(2 * this.#held.length);
      more.set(this.#held);
      this.#held = more;
    }
    for (const value of values) this.#held[this.#size++] = value;
  }

  all() {
    return this.#held.slice(0, this.#size);
  }
}

// Median cut: the box with most colours is halved along its longest side until there are enough boxes.
function palette(frames) {
  const counts = new Map();
  for (const frame of frames)
    for (let i = 0; i < frame.length; i += 4) {
      const colour = (frame[i] << 16) | (frame[i + 1] << 8) | frame[i + 2];
      counts.set(colour, (counts.get(colour) ?? 0) + 1);
    }
  const all = [...counts].map(([c, count]) => ({ rgb: [c >> 16, (c >> 8) & 255, c & 255], count }));
  if (all.length <= MOST) return all.map(({ rgb }) => rgb);
  const boxes = [all];
  while (boxes.length < MOST) {
    let widest = null;
    for (const box of boxes)
      for (let c = 0; c < 3 && box.length > 1; c++) {
        let [least, most] = [255, 0];
        for (const { rgb } of box) [least, most] = [Math.min(least, rgb[c]), Math.max(most, rgb[c])];
        if (!widest || most - least > widest.side) widest = { box, c, side: most - least };
      }
    if (!widest || widest.side === 0) break;
    const { box, c } = widest;
    box.sort((a, b) => a.rgb[c] - b.rgb[c]);
    boxes.splice(boxes.indexOf(box), 1, box.slice(0, box.length >> 1), box.slice(box.length >> 1));
  }
  return boxes.map((box) => {
    const total = box.reduce((sum, { count }) => sum + count, 0);
    return [0, 1, 2].map((c) => Math.round(box.reduce((sum, { rgb, count }) => sum + rgb[c] * count, 0) / total));
  });
}

// (r, g, b) -> the number of the nearest colour, each looked for once.
function numbers(colours) {
  const known = new Map();
  return (r, g, b) => {
    const key = (r << 16) | (g << 8) | b;
    let best = known.get(key);
    if (best !== undefined) return best;
    let least = Infinity;
    for (const [i, [x, y, z]] of colours.entries()) {
      const far = (r - x) ** 2 + (g - y) ** 2 + (b - z) ** 2;
      if (far < least) [least, best] = [far, i];
    }
    known.set(key, best);
    return best;
  };
}

// LZW as GIF has it: codes of 9 to 12 bits, low bits first, in blocks of up to 255 bytes.
function compress(indices, out) {
  const CLEAR = 256, END = 257, LAST = 4095, table = new Int16Array(4096 * 256);
  let block = [], held = 0, bits = 0, width = 9, next = END + 1;
  const put = (code) => {
    held |= code << bits;
    for (bits += width; bits >= 8; bits -= 8, held >>>= 8) {
      block.push(held & 255);
      if (block.length === 255) out.add(255, ...block), (block = []);
    }
  };
  put(CLEAR);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const at = (prefix << 8) | indices[i];
    if (table[at]) {
      prefix = table[at];
      continue;
    }
    put(prefix);
    prefix = indices[i];
    if (next <= LAST) {
      if (next === 1 << width) width++;
      table[at] = next++;
    } else {
      put(CLEAR);
      table.fill(0);
      [width, next] = [9, END + 1];
    }
  }
  put(prefix);
  if (next === 1 << width && width < 12) width++;
  put(END);
  if (bits) block.push(held & 255);
  if (block.length) out.add(block.length, ...block);
  out.add(0);
}
