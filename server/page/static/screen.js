// The picture: drawing, its size on the page, and the veil over it.

import { $, remember, remembered } from "./dom.js";

export class Screen {
  constructor(store) {
    this.store = store;
    this.canvas = $("screen");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.smooth = remembered("genie.smooth", "no") === "yes";
    new ResizeObserver(() => this.fit()).observe($("frame"));
    store.watch(["world"], ({ world }) => {
      if (!world) return;
      [this.canvas.width, this.canvas.height] = [world.width, world.height];
      this.fit();
    });
    store.watch(["veil"], ({ veil }) => this.#veil(veil));
    $("smooth").setAttribute("aria-pressed", this.smooth);
    $("smooth").onclick = () => {
      this.smooth = !this.smooth;
      remember("genie.smooth", this.smooth ? "yes" : "no");
      $("smooth").setAttribute("aria-pressed", this.smooth);
      this.fit();
    };
    $("theatre").onclick = () => this.theatre();
    $("fullscreen").hidden = !document.fullscreenEnabled;
    $("fullscreen").onclick = () => this.fullscreen();
    addEventListener("fullscreenchange", () => this.#marks());
  }

  // Draws an answer's picture unless `still` says no by the time that it is decoded. Returns whether it did.
  async draw(answer, still) {
    const bitmap = await createImageBitmap(answer.picture);
    const wanted = still();
    if (wanted) this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return wanted;
  }

  theatre() {
    document.body.classList.toggle("theatre");
    this.#marks();
    this.fit();
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else $("stage").requestFullscreen().catch(() => {}); // refused without a click
  }

  #marks() {
    $("theatre").setAttribute("aria-pressed", document.body.classList.contains("theatre"));
    $("fullscreen").setAttribute("aria-pressed", Boolean(document.fullscreenElement));
  }

  // A whole number of the display's pixels per pixel of the world; when smoothed, as large as there is room.
  fit() {
    const box = $("frame"), ratio = devicePixelRatio || 1, { canvas } = this;
    box.style.setProperty("--tall", canvas.height / canvas.width);
    const across = document.body.classList.contains("comparing") ? 2 : 1;
    const most = Math.min((box.clientWidth * ratio) / canvas.width / across, (box.clientHeight * ratio) / canvas.height);
    const scale = (most >= 1 && !this.smooth ? Math.floor(most) : most) / ratio;
    for (const each of [canvas, $("overlay"), $("other")]) {
      each.style.width = `${canvas.width * scale}px`;
      each.style.height = `${canvas.height * scale}px`;
      each.style.imageRendering = this.smooth ? "auto" : "pixelated";
    }
  }

  #veil(veil) {
    $("veil").hidden = !veil;
    $("veil-text").textContent = veil?.text ?? "";
    $("veil-button").hidden = !veil?.button && !veil?.choose;
    $("veil-button").textContent = veil?.choose ? "Choose a picture" : (veil?.button ?? "");
    $("veil-button").onclick = veil?.choose ? () => $("file").click() : (veil?.act ?? null);
  }
}
