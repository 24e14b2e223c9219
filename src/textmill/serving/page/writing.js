// The views "Write" and "Chat": one panel or two, and the place to type.

import { make } from "./dom.js";
import { Panel } from "./panel.js";
import { t } from "./words.js";

const kept = { write: { two: false, panels: [] }, chat: { two: false, panels: [] } };

export function writing(root, cards, view) {
  const models = cards.filter((one) => one.writes);
  if (!models.length) {
    root.replaceChildren(make("p", { className: "notice" }, t("noWriter")));
    return () => {};
  }
  const chat = view === "chat";
  const memory = kept[view];
  const columns = make("div", { className: "columns" });
  const input = make("textarea", { id: "prompt", value: memory.draft ?? "", rows: 3, placeholder: chat ? "" : t("promptHint"), ariaLabel: t(chat ? "message" : "prompt") });
  const go = make("button", { type: "submit", className: "primary" }, t(chat ? "send" : "go"));
  const stop = make("button", { type: "button", disabled: true, onclick: () => panels.forEach((one) => one.stop()) }, t("stop"));
  const two = make("button", { type: "button", ariaPressed: String(memory.two), onclick: () => { memory.two = !memory.two; arrange(); } }, t("compare"));
  const clear = make("button", { type: "button", onclick: () => { panels.forEach((one) => one.reset()); input.focus(); state(); } }, t("clear"));
  const form = make("form", { className: "composer", onsubmit: (event) => { event.preventDefault(); send(); } },
    input, make("div", { className: "row" }, go, stop, two, clear, make("span", { className: "right" }, t("hint"))));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (chat && !event.shiftKey && !event.isComposing))) {
      event.preventDefault();
      send();
    }
  });
  input.addEventListener("input", () => { memory.draft = input.value; });
  let panels = [];

  function state() {
    const busy = panels.some((one) => one.busy);
    go.disabled = busy;
    stop.disabled = !busy;
    panels.forEach((one, index) => { memory.panels[index] = one.kept; });
  }

  function arrange() {
    two.ariaPressed = String(memory.two);
    columns.classList.toggle("two", memory.two);
    while (panels.length > (memory.two ? 2 : 1)) panels.pop().stop();
    while (panels.length < (memory.two ? 2 : 1)) panels.push(new Panel(models, chat, panels.length, memory.panels[panels.length], state));
    columns.replaceChildren(...panels.map((one) => one.element));
    state();
  }

  function send() {
    if (panels.some((one) => one.busy)) return;
    const prompt = input.value || (chat ? "" : input.placeholder);
    if (!prompt) return;
    if (chat) {
      input.value = "";
      memory.draft = "";
    }
    for (const panel of panels) panel.send(prompt);
  }

  root.replaceChildren(columns, form);
  arrange();
  return () => panels.forEach((one) => one.stop());
}
