// Bookmarks, what was recorded, and sessions of before.

import { $, button, make } from "./dom.js";

const KINDS = { gif: "GIF", webp: "WebP", mp4: "MP4" };
const TYPES = { gif: "image/gif", webp: "image/webp", mp4: "video/mp4" };

export class Marks {
  // address(play) -> where the files of a play begin
  constructor(store, game, address, shelf, tab) {
    Object.assign(this, { store, game, address, shelf, tab });
    store.watch(["bookmarks", "play"], () => this.#bookmarks());
    store.watch(["recorded", "world"], () => this.#recordings());
    $("save").onclick = () => store.state.frame && make("a", { href: `${address(store.state.play)}/session.genie`, download: "" }).click();
    $("open").onclick = () => $("session-file").click();
    $("copy-frame").onclick = () => this.#copy();
    $("scale").onchange = () => this.#recordings();
    this.earlier();
  }

  #bookmarks() {
    const { bookmarks, play } = this.store.state;
    const items = bookmarks.map(([id, depth]) => {
      const go = button({ className: "go", title: `Go to frame ${depth}` }, make("img", { src: `${this.address(play)}/frames/${id}.png`, alt: "" }));
      const drop = button({ className: "drop", title: "Remove", textContent: "×" });
      go.setAttribute("aria-label", `Go to bookmark, frame ${depth}`);
      drop.setAttribute("aria-label", `Remove bookmark, frame ${depth}`);
      go.onclick = () => this.game.go(id).then(() => $("screen").focus());
      drop.onclick = () => this.game.forget(id);
      return make("li", {}, go, drop, `${depth}`);
    });
    $("marks").replaceChildren(...items);
    $("no-marks").hidden = items.length > 0;
  }

  #recordings() {
    const { recorded, hello, world } = this.store.state;
    if (!world) return;
    const scale = $("scale").value === "auto" ? Math.max(1, Math.min(8, Math.round(256 / world.width))) : Number($("scale").value);
    const items = recorded.map(({ play, first, last, from, to, fps }) => {
      const item = make("li", { textContent: `Frames ${from} to ${to}, ${fps} frames/s ` });
      for (const kind of Object.keys(KINDS).filter((name) => hello.recordings.includes(name))) {
        const query = new URLSearchParams({ first, last, fps, scale });
        const href = `${this.address(play)}/recording.${kind}?${query}`;
        item.append(make("a", { href, download: "", textContent: KINDS[kind] }), " ");
        if (kind !== "gif" || !navigator.canShare?.({ files: [new File([], "a.gif", { type: TYPES.gif })] })) continue;
        const share = button({ className: "link", textContent: "Share" });
        share.onclick = () => this.#share(href, kind, `${world.title}-${from}-${to}`);
        item.append(share, " ");
      }
      return item;
    });
    $("recordings").replaceChildren(...items);
    $("no-recordings").hidden = items.length > 0;
  }

  async #share(href, kind, name) {
    const blob = await (await fetch(href)).blob();
    const file = new File([blob], `${name.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase()}.${kind}`, { type: TYPES[kind] });
    await navigator.share({ files: [file], title: "genie_cpp" }).catch((error) => error.name !== "AbortError" && this.game.say(error.message));
  }

  async #copy() {
    const { frame } = this.store.state;
    if (!frame) return;
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": frame.picture })]);
      this.game.say("The frame is copied.", { alarm: false });
    } catch {
      make("a", { href: URL.createObjectURL(frame.picture), download: `frame-${frame.depth}.png` }).click(); // not allowed to, so as a file
    }
  }

  // Sessions that other tabs, or this one in another world, left in this browser.
  async earlier() {
    let plays = [];
    try {
      plays = await this.shelf.plays();
    } catch {
      // this browser keeps nothing
    }
    const items = plays.filter((play) => play.tab !== this.tab && play.depth > 0).slice(0, 6).map((play) => {
      const when = new Date(play.when).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
      const go = button({ textContent: `${play.title}, frame ${play.depth}, ${when}` });
      const drop = button({ className: "drop", title: "Forget it", textContent: "×" });
      drop.setAttribute("aria-label", `Forget ${go.textContent}`);
      go.onclick = async () => {
        await this.game.open(play.world);
        if (this.store.state.world?.name === play.world) await this.game.resume(play);
        $("screen").focus();
      };
      drop.onclick = () => this.shelf.drop(play.key).then(() => this.earlier());
      return make("li", {}, go, drop);
    });
    $("earlier").replaceChildren(...items);
    $("earlier-head").hidden = !items.length;
  }
}
