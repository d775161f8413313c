// How the frame shown came about, over the picture: its tokens, the MaskGIT step that filled each in, and how unsure the
// model was. The server makes the frame once more for this, so it is off until it is asked for.

import { $, make } from "./dom.js";

const BARS = 6;

const WORDS = {
  tokens: "Each square is a token: one of the codes that the tokenizer cuts pictures into. The same colour is the same code.",
  filled: "When each token was filled in. Dark squares came first: those that the model was surest of.",
  looked: "How much each token looked back at earlier frames, rather than at its own, as its attention over time shared itself: bright looked back most. Point at one to see how far.",
  bits: "How unsure the model was about each token when it was filled in: dark is sure, bright is open.",
};

export class Explain {
  #answer = null;
  #asking = false;

  constructor(store, game, screen) {
    Object.assign(this, { store, game, screen });
    this.overlay = $("overlay");
    $("explain").onchange = () => this.#changed();
    store.watch(["frame"], () => this.#follow());
    $("frame").addEventListener("pointermove", (event) => this.#point(event));
    $("frame").addEventListener("pointerleave", () => this.#legend());
  }

  get kind() {
    return $("explain").value;
  }

  #changed() {
    this.overlay.hidden = !this.kind;
    this.#legend();
    this.#follow();
  }

  // One question at a time; while the answer comes, the game goes on.
  async #follow() {
    const { frame } = this.store.state;
    if (!this.kind || !frame || this.#asking) return;
    if (this.#answer?.id === frame.id) return this.#draw();
    this.#asking = true;
    const answer = frame.depth > 0 ? await this.game.ask({ type: "explain" }) : null;
    this.#asking = false;
    this.#answer = answer;
    this.#draw();
    this.#legend();
    if (answer && this.store.state.frame && this.store.state.frame.id !== answer.id) this.#follow();
  }

  #draw() {
    const { overlay } = this, { canvas } = this.screen, answer = this.#answer, context = overlay.getContext("2d");
    [overlay.width, overlay.height] = [canvas.width, canvas.height];
    if (!answer || !this.kind) return;
    const { columns, rows } = answer, [w, h] = [overlay.width / columns, overlay.height / rows];
    const most = Math.max(1, ...answer.bits);
    for (let i = 0; i < columns * rows; i++) {
      context.fillStyle = {
        tokens: `hsl(${(answer.tokens[i] * 137.508) % 360} 70% ${40 + (answer.tokens[i] % 5) * 6}% / 0.75)`,
        filled: heat((answer.filled[i] + 1) / answer.steps),
        bits: heat(answer.bits[i] / most),
        looked: answer.looked ? heat((1 - answer.looked[i][0]) ** 2) : "transparent",
      }[this.kind];
      context.fillRect((i % columns) * w, Math.floor(i / columns) * h, w, h);
    }
  }

  #legend(text = "", token = null) {
    const answer = this.#answer;
    const looked = this.kind === "looked" ? answer?.looked : null;
    this.#bars(looked && (token === null ? mean(looked) : looked[token]));
    if (this.kind === "looked" && answer && !looked) return ($("explain-says").textContent = "This backend does not tell where its attention went.");
    if (!this.kind) return ($("explain-says").textContent = "Off. It costs time: the frame is made twice.");
    const total = answer ? ` This frame: ${answer.steps} ${answer.steps === 1 ? "step" : "steps"}, ${answer.bits.reduce((sum, bits) => sum + bits, 0).toFixed(0)} bits in all.` : " Go on by one frame to see it.";
    $("explain-says").textContent = text || WORDS[this.kind] + total;
  }

  #point(event) {
    const answer = this.#answer, box = this.screen.canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (!answer || !this.kind || x < 0 || x >= 1 || y < 0 || y >= 1) return;
    const i = Math.floor(y * answer.rows) * answer.columns + Math.floor(x * answer.columns);
    this.#legend(`Token ${answer.tokens[i]}, filled in at step ${answer.filled[i] + 1} of ${answer.steps}, ${answer.bits[i].toFixed(2)} bits of doubt.`, i);
  }

  // One bar for each of the last frames: how much of the attention it got.
  #bars(share) {
    const list = $("looked");
    list.hidden = !share;
    if (!share) return;
    const rows = share.slice(0, BARS).map((part, age) => [age === 0 ? "this frame" : `${age} before`, part]);
    if (share.length > BARS) rows.push(["older", share.slice(BARS).reduce((sum, part) => sum + part, 0)]);
    const items = rows.map(([label, part]) => {
      const bar = make("meter", { value: part });
      bar.setAttribute("aria-label", label);
      return make("li", {}, make("span", { textContent: label }), bar, make("span", { textContent: `${Math.round(100 * part)} %` }));
    });
    list.replaceChildren(...items);
  }
}

function mean(rows) {
  return rows[0].map((_, age) => rows.reduce((sum, row) => sum + row[age], 0) / rows.length);
}

// 0 is dark blue, 1 is bright yellow.
function heat(share) {
  return `hsl(${260 - 205 * share} 85% ${18 + 45 * share}% / 0.72)`;
}
