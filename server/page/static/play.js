// The page: its parts, and how they hang together.

import { Compare } from "./compare.js";
import { Connection } from "./connection.js";
import { $, opened, remembered } from "./dom.js";
import { Drawing } from "./draw.js";
import { Explain } from "./explain.js";
import { FRESH, Game } from "./game.js";
import { onGamepads, onKeys, onSwipes } from "./input.js";
import { Keeper, Shelf } from "./keep.js";
import { Keys } from "./keys.js";
import { Marks } from "./marks.js";
import { Pad } from "./pad.js";
import { onPanels } from "./panels.js";
import { Screen } from "./screen.js";
import { Starts } from "./starts.js";
import { Store } from "./store.js";
import "./theme.js";
import { Timeline } from "./timeline.js";
import { Worlds } from "./worlds.js";

// A value that outlives a reload, but belongs to this tab.
function ofTab(name) {
  let value = "";
  try {
    value = sessionStorage.getItem(name) ?? "";
  } catch {
    // a browser without storage
  }
  const set = (next) => {
    value = next;
    try {
      sessionStorage.setItem(name, next);
    } catch {
      // as above
    }
  };
  return { get: () => value, set };
}

const store = new Store({ ...FRESH, limit: Number(remembered("genie.limit", 20)) });
const screen = new Screen(store), shelf = new Shelf();
const player = ofTab("genie.player"), tab = ofTab("genie.tab");
if (!tab.get()) tab.set(Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join(""));
const address = (play) => `sessions/${store.state.hello.player}/${play}`;

const game = new Game(store, {
  connect: (id, onclose) => new Connection(id, onclose),
  draw: (answer, still) => screen.draw(answer, still),
  player,
  recall: (hello) => keeper.recall(hello),
});
const keeper = new Keeper(game, shelf, tab.get(), () => `${address(store.state.play)}/session.genie`);
const keys = new Keys(() => pad.show());
const pad = new Pad(store, game, keys);
store.watch(["world"], ({ world }) => world && keys.open(world)); // before the views that show the keys
const timeline = new Timeline((depth) => game.seek(depth), (id) => `${address(store.state.play)}/frames/${id}.png`);
store.watch(["frame", "path", "play"], ({ frame, path, play }) => frame && timeline.update(frame, path, game.first, play));
store.watch(["world"], ({ world }) => world || timeline.clear());

new Worlds(store, game);
new Marks(store, game, address, shelf, tab.get());
const starts = new Starts(store, game, shelf);
new Compare(store, game, screen);
new Explain(store, game, screen);
onPanels(store, game, keys);

const help = () => opened($("help-dialog"));
const controls = {
  p: () => game.pause(), " ": () => game.pause(), ".": () => game.single(), r: () => $("reset").click(), b: () => game.bookmark(),
  c: () => game.record(), f: () => screen.fullscreen(), t: () => screen.theatre(), n: () => starts.surprise(), "?": help,
};
onKeys(game, keys, controls);
onSwipes(game, keys);
onGamepads(game, keys, controls);

const drawing = new Drawing((blob) => starts.take(blob));
$("draw-button").onclick = () => store.state.world && drawing.open(screen.canvas);
$("help-button").onclick = help;
$("help-done").onclick = () => $("help-dialog").close();
$("keys-button").onclick = () => keys.edit();
for (const dialog of document.querySelectorAll("dialog")) {
  new MutationObserver(() => store.set({ busy: Boolean(document.querySelector("dialog[open]")) })).observe(dialog, { attributeFilter: ["open"] });
  dialog.addEventListener("close", () => screen.canvas.focus());
}

screen.canvas.focus();
game.connect();
game.run();
