// The views "Report" and "Corpus" of the run that a model belongs to.

import { Refused, get, post } from "./api.js";
import { make } from "./dom.js";
import { t } from "./words.js";

let chosen = null;

function bar(cards, onchange, ...more) {
  const select = make("select", { onchange: () => { chosen = select.value; onchange(); } },
    ...cards.map((one) => make("option", { value: one.id, selected: one.id === chosen }, one.id)));
  chosen = select.value;
  return make("div", { className: "bar" }, make("label", {}, t("model"), select), ...more);
}

function told(error) {
  return make("p", { className: "notice", role: "alert" }, error instanceof Refused ? error.message : t("gone"));
}

export async function report(root, cards) {
  const runs = cards.filter((one) => one.run);
  if (!runs.length) return root.replaceChildren(make("p", { className: "notice" }, t("noRun")));
  const place = make("div");
  const show = async () => {
    place.replaceChildren();
    root.querySelector("iframe")?.remove();
    try {
      const { url } = await post(`/page/${encodeURIComponent(chosen)}/report`, {});
      root.append(make("iframe", { src: url, title: t("report") }));
    } catch (error) {
      place.replaceChildren(told(error));
    }
  };
  root.replaceChildren(bar(runs, show), place);
  await show();
}

export async function corpus(root, cards) {
  const runs = cards.filter((one) => one.run);
  if (!runs.length) return root.replaceChildren(make("p", { className: "notice" }, t("noRun")));
  const search = make("input", { type: "search", maxLength: 200 });
  const split = make("select", { onchange: () => show() }, ...["", "train", "validation", "test"].map((one) => make("option", { value: one }, t(one || "all"))));
  const list = make("ul", { className: "documents" });
  const more = make("button", { type: "button", hidden: true, onclick: () => show(list.children.length) }, t("more"));
  const status = make("p", { className: "notice", role: "status" });
  let turn = 0;

  async function show(skip = 0) {
    const mine = ++turn;
    status.textContent = t("wait");
    more.hidden = true;
    if (!skip) list.replaceChildren();
    const query = new URLSearchParams({ search: search.value, split: split.value, skip, limit: 20 });
    try {
      const found = await get(`/page/${encodeURIComponent(chosen)}/documents?${query}`);
      if (mine !== turn) return; // a later question has been asked
      list.append(...found.documents.map((one) => document_(one, search.value)));
      more.hidden = !found.more;
      status.textContent = list.children.length ? "" : t("nothing");
    } catch (error) {
      if (mine === turn) status.replaceChildren(told(error));
    }
  }

  function document_(one, wanted) {
    const body = make("div", { className: "body" }, ...marked(one.text, wanted));
    const whole = make("button", { type: "button", ariaExpanded: "false" }, t("whole"));
    whole.addEventListener("click", async () => {
      const open = whole.ariaExpanded === "true";
      let parts = marked(one.text, wanted);
      if (!open) {
        whole.disabled = true;
        try {
          const found = await get(`/page/${encodeURIComponent(chosen)}/documents/${one.id}`);
          parts = marked(found.text, wanted);
        } catch (error) {
          return body.replaceChildren(told(error)); // the button still offers the whole text
        } finally {
          whole.disabled = false;
        }
      }
      // The button says what is shown, so it changes with the text and not before it.
      body.replaceChildren(...parts);
      body.classList.toggle("whole", !open);
      whole.ariaExpanded = String(!open);
      whole.textContent = t(open ? "whole" : "less");
      if (!open) body.querySelector("mark")?.scrollIntoView({ block: "nearest" });
    });
    return make("li", {}, make("div", { className: "meta" }, make("span", {}, one.source), make("span", {}, one.language),
      make("span", {}, t(one.split) ?? one.split), make("span", {}, `${one.characters.toLocaleString()} ${t("characters")}`)), body, whole);
  }

  const form = make("form", { className: "bar", role: "search", onsubmit: (event) => { event.preventDefault(); show(); } },
    make("label", {}, t("search"), search), make("label", {}, t("split"), split), make("button", {}, t("search")));
  root.replaceChildren(bar(runs, () => show()), form, list, status, more);
  await show();
}

// A text with every place that holds `wanted` marked.
function marked(text, wanted) {
  if (!wanted) return [text];
  const parts = [];
  const low = text.toLowerCase();
  const sought = wanted.toLowerCase();
  let from = 0;
  if (low.length !== text.length) return [text]; // lower case of another length: places would not fit
  for (let at = low.indexOf(sought); at >= 0; at = low.indexOf(sought, from)) {
    parts.push(text.slice(from, at), make("mark", {}, text.slice(at, at + sought.length)));
    from = at + sought.length;
  }
  return [...parts, text.slice(from)];
}
