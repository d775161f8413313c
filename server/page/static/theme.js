// Light, dark, or as the system has it; kept in this browser.

import { $, remember, remembered } from "./dom.js";

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").querySelector("b").textContent = name;
  remember("genie.theme", name);
}

theme(THEMES.includes(remembered("genie.theme", "")) ? remembered("genie.theme", "") : "auto");
$("theme").onclick = () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]);
