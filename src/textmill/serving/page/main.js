// The page's frame: views by address, language, light or dark, and what to do when the server is gone.

import { events, get } from "./api.js";
import { corpus, report } from "./looking.js";
import { closeWhy } from "./tokens.js";
import { language, setLanguage, t } from "./words.js";
import { writing } from "./writing.js";

const root = document.getElementById("view");
const gone = document.getElementById("gone");
let leave = () => {};
let cards = null;
let waiting = null;

const view = () => {
  const name = location.hash.slice(1);
  return ["write", "chat", "report", "corpus"].includes(name) ? name : "write";
};

function translate() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-title]")) element.title = element.ariaLabel = t(element.dataset.tTitle);
  const button = document.getElementById("language");
  const zh = language() === "zh";
  Object.assign(button, { textContent: zh ? "English" : "中文", title: zh ? "English" : "中文", lang: zh ? "en" : "zh" });
}

async function show() {
  closeWhy();
  leave();
  leave = () => {};
  const name = view();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    cards = (await get("/v1/models")).data;
  } catch (error) {
    if (error instanceof TypeError) return; // gone: the banner says so
    root.textContent = error.message;
    return;
  }
  if (name !== view()) return; // another view was chosen meanwhile
  if (name === "report") await report(root, cards);
  else if (name === "corpus") await corpus(root, cards);
  else leave = writing(root, cards, name);
}

async function lookAgain() {
  try {
    const answer = await fetch("/health");
    if (!answer.ok) return;
  } catch {
    return;
  }
  events.dispatchEvent(new Event("back"));
}

events.addEventListener("gone", () => {
  gone.hidden = false;
  waiting ??= setInterval(lookAgain, 2000);
});
events.addEventListener("back", () => {
  if (gone.hidden) return;
  gone.hidden = true;
  clearInterval(waiting);
  waiting = null;
  if (!cards) show(); // what is on the page stays there; an empty one is filled
});
document.getElementById("retry").addEventListener("click", lookAgain);
document.getElementById("language").addEventListener("click", () => {
  setLanguage(language() === "zh" ? "en" : "zh");
  translate();
  show();
});

const THEMES = ["", "light", "dark"];
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
}
let stored = "";
try { stored = localStorage.getItem("textmill.theme") ?? ""; } catch { /* private windows */ }
theme(stored);
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  stored = dark ? THEMES[1] : THEMES[2];
  theme(stored);
  try { localStorage.setItem("textmill.theme", stored); } catch { /* it holds for this visit */ }
});

window.addEventListener("hashchange", show);
translate();
show();
