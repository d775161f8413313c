// The worlds to choose from: those that are here first, then published ones, which are fetched with their licence shown.

import { $, button, make, named, opened, sleep } from "./dom.js";

export class Worlds {
  #busy = false;

  constructor(store, game) {
    [this.store, this.game, this.dialog] = [store, game, $("worlds-dialog")];
    $("world-button").onclick = () => this.open();
    $("worlds-done").onclick = () => this.dialog.close();
    store.watch(["world", "hello"], ({ world, hello }) => {
      $("world-button").querySelector("b").textContent = world?.title ?? "…";
      $("about").textContent = world?.about ?? "";
      $("phone-button").hidden = !hello?.invite.length;
      if (hello?.invite.length) $("invite-address").textContent = hello.invite[0];
    });
    $("phone-button").onclick = () => {
      $("invite").src = "invite.svg";
      opened($("phone-dialog"));
    };
    $("phone-done").onclick = () => $("phone-dialog").close();
  }

  async open() {
    if (!this.store.state.hello) return;
    this.#show(this.store.state.hello.worlds);
    opened(this.dialog);
    const answer = await this.game.ask({ type: "worlds" });
    if (answer && !this.#busy) this.#show(answer.worlds);
  }

  #show(worlds) {
    const now = this.store.state.world?.name;
    $("worlds-list").replaceChildren(
      ...worlds.map((world) => {
        const here = world.state === "here";
        const facts = [here ? "" : "to be fetched", world.bytes ? named(world.bytes) : "", `licence: ${world.license}`, world.from];
        const card = make(
          "li", { className: "world", data: { world: world.name } },
          world.starts ? make("img", { src: `starts/0.png?${new URLSearchParams({ world: world.name })}`, alt: "", loading: "lazy" }) : make("span", { className: "no-picture" }),
          make(
            "div", {},
            make("h3", { textContent: world.title }),
            make("p", { textContent: world.about }),
            make("p", { className: "hint", textContent: facts.filter(Boolean).join(", ") }),
          ),
        );
        const go = button({ className: here ? "strong" : "", textContent: world.name === now ? "Playing" : here ? "Play" : "Fetch" });
        go.setAttribute("aria-label", `${go.textContent} ${world.title}`);
        go.disabled = world.name === now;
        go.onclick = () => (here ? this.#play(world.name) : this.#fetch(world, card));
        card.append(go);
        return card;
      }),
    );
  }

  async #play(name) {
    this.dialog.close();
    await this.game.open(name);
  }

  async #fetch(world, card) {
    if (this.#busy) return;
    this.#busy = true;
    const bar = make("progress", { max: 1 }), words = make("p", { className: "hint", textContent: "Asking…" });
    bar.setAttribute("aria-label", `Fetching ${world.title}`);
    bar.removeAttribute("value");
    words.setAttribute("role", "status");
    card.querySelector("div").append(bar, words);
    card.querySelector("button").disabled = true;
    try {
      for (;;) {
        const answer = await this.game.ask({ type: "fetch", name: world.name });
        if (!answer) {
          words.textContent = this.store.state.message?.text ?? "It could not be fetched.";
          words.classList.add("fault");
          bar.remove();
          card.querySelector("button").disabled = false;
          return;
        }
        if (answer.total > 0 && answer.done < answer.total) bar.value = answer.done / answer.total;
        else bar.removeAttribute("value");
        const share = answer.total ? `${named(answer.done)} of ${named(answer.total)}. ` : "";
        words.textContent = `${share}${answer.words}`;
        if (answer.ready) break;
        await sleep(500);
      }
    } finally {
      this.#busy = false;
    }
    if (this.dialog.open) await this.#play(world.name);
  }
}
