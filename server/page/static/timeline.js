// The path of frames: a slider over all of it, and a strip of thumbnails at a stride that is a power of two.

const THUMB = 47; // pixels, with the gap

export class Timeline {
  #path = []; // ids, of depths first…last
  #first = 0;
  #now = 0;
  #play = 0; // frames are numbered anew in each
  #shown = []; // ids in the strip

  // seek(depth); address(id): of a frame's picture
  constructor(seek, address) {
    [this.seek, this.address] = [seek, address];
    this.scrub = document.getElementById("scrub");
    this.position = document.getElementById("position");
    this.strip = document.getElementById("strip");
    this.scrub.oninput = () => seek(Number(this.scrub.value));
    new ResizeObserver(() => this.#draw(true)).observe(this.strip);
  }

  update(frame, path, first, play) {
    const anew = play !== this.#play || Boolean(frame.path);
    [this.#path, this.#first, this.#now, this.#play] = [path, first, frame.depth, play];
    this.scrub.min = frame.first;
    this.scrub.max = frame.last;
    this.scrub.value = frame.depth;
    this.position.textContent = `${frame.depth} / ${frame.last}`;
    this.#draw(anew);
  }

  clear() {
    [this.#path, this.#shown] = [[], []];
    this.strip.replaceChildren();
  }

  #draw(all) {
    const room = Math.max(4, Math.floor((this.strip.clientWidth + 3) / THUMB));
    let stride = 1;
    while (Math.ceil(this.#path.length / stride) > room) stride *= 2;
    const ids = this.#path.filter((_, index) => index % stride === 0);
    if (all) {
      this.#shown = [];
      this.strip.replaceChildren();
    }
    ids.forEach((id, slot) => {
      if (this.#shown[slot] === id) return;
      const image = Object.assign(new Image(), { src: this.address(id), alt: "" });
      image.onerror = () => image.remove();
      const depth = this.#first + slot * stride;
      const button = Object.assign(document.createElement("button"), { type: "button", tabIndex: -1, title: `Frame ${depth}` });
      button.dataset.depth = depth;
      button.append(image);
      button.onclick = () => this.seek(depth);
      if (slot < this.strip.children.length) this.strip.children[slot].replaceWith(button);
      else this.strip.append(button);
    });
    while (this.strip.children.length > ids.length) this.strip.lastChild.remove();
    this.#shown = ids;
    for (const button of this.strip.children) {
      const depth = Number(button.dataset.depth);
      button.classList.toggle("now", depth <= this.#now && this.#now < depth + stride);
      button.classList.toggle("later", depth > this.#now);
    }
  }
}
