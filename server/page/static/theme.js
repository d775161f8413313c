// Light, dark, or as the system has it; kept in this browser.

const $ = (id) => document.getElementById(id);
const THEMES = ["auto", "light", "dark"];
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").querySelector("b").textContent = name;
  localStorage.setItem("genie.theme", name);
}
theme(THEMES.includes(localStorage.getItem("genie.theme")) ? localStorage.getItem("genie.theme") : "auto");
$("theme").onclick = () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]);
