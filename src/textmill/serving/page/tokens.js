// Text as tokens that can be clicked: how likely each was, what else might have come, what would have followed.

import { stream } from "./api.js";
import { make } from "./dom.js";
import { t } from "./words.js";

export const ALTERNATIVES = 8;
const PREVIEW = 24;

// White space made visible.
export function visible(text) {
  return text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";
}

const percent = (logprob) => {
  const share = 100 * Math.exp(logprob);
  return share >= 10 ? `${share.toFixed(0)}%` : share >= 0.1 ? `${share.toFixed(1)}%` : "<0.1%";
};

// A growing text of tokens in `element`. `context()` says how to go on from a token: {model, prompt ids, settings}.
export class TokenText {
  constructor(element, { onTakeOver }) {
    this.element = element;
    this.onTakeOver = onTakeOver;
    this.clear();
    element.addEventListener("click", (event) => this.open(event.target.closest(".t")));
    element.addEventListener("keydown", (event) => this.key(event));
  }

  clear() {
    this.entries = [];
    this.promptIds = [];
    this.decoder = new TextDecoder();
    this.pending = null;
    this.text = "";
    this.element.replaceChildren();
  }

  // Add a token as the server tells of it: {token, id, bytes, logprob, top_logprobs}; tokens of one character share a span.
  add(entry, taken = false) {
    const piece = this.decoder.decode(new Uint8Array(entry.bytes), { stream: true });
    const span = this.pending ?? make("span", { className: "t", role: "button", tabIndex: this.entries.length ? -1 : 0 });
    if (!this.pending) {
      span.places = [];
      span.setAttribute("aria-haspopup", "dialog");
      this.element.append(span);
    }
    span.places.push(this.entries.length);
    span.textContent += piece;
    span.classList.toggle("taken", taken || span.classList.contains("taken"));
    const surprise = -(entry.logprob ?? 0) / Math.LN2;
    span.style.setProperty("--odd", Math.max(Number(span.style.getPropertyValue("--odd")) || 0, Math.min(1, surprise / 10)));
    this.pending = piece === "" && entry.bytes.length ? span : null;
    this.entries.push(entry);
    this.text += piece;
  }

  idsBefore(place) {
    return [...this.promptIds, ...this.entries.slice(0, place).map((entry) => entry.id)];
  }

  // Drop the tokens from `place` on.
  cut(place) {
    const kept = this.entries.slice(0, place).map((entry, i) => [entry, this.taken?.has(i)]);
    const ids = this.promptIds;
    this.clear();
    this.promptIds = ids;
    for (const [entry, taken] of kept) this.add(entry, taken);
  }

  key(event) {
    const here = event.target.closest(".t");
    if (!here) return;
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    if (step) {
      let next = here[step];
      while (next && !next.classList.contains("t")) next = next[step];
      if (next) {
        here.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === " ") {
      this.open(here);
      event.preventDefault();
    }
  }

  open(span) {
    if (span) why(this, span);
  }
}

let shown = null;

export function closeWhy(focus = false) {
  if (!shown) return;
  shown.abort?.abort();
  shown.box.remove();
  shown.span.removeAttribute("aria-expanded");
  if (focus) shown.span.focus();
  shown = null;
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeWhy(true); });
document.addEventListener("pointerdown", (event) => {
  if (shown && !shown.box.contains(event.target) && !event.target.closest(".t")) closeWhy();
});
window.addEventListener("resize", () => closeWhy());

// The box that explains a token.
function why(text, span) {
  const same = shown?.span === span;
  closeWhy(true);
  if (same) return;
  const box = make("section", { className: "why", role: "dialog", tabIndex: -1 });
  box.setAttribute("aria-label", `${t("token")} ${visible(span.textContent)}`);
  box.append(make("button", { type: "button", className: "close", ariaLabel: t("close"), onclick: () => closeWhy(true) }, "×"));
  if (span.places.length > 1) box.append(make("p", {}, make("b", {}, span.textContent), ` ${t("pieces", span.places.length)}`));
  const follow = make("div", { className: "follow", ariaLive: "polite" }, make("p", {}, t("followHint")));
  for (const place of span.places) box.append(...explained(text, place, follow));
  box.append(follow);
  document.body.append(box);
  shown = { box, span };
  span.setAttribute("aria-expanded", "true");
  settle(box, span);
  box.querySelector("li button")?.focus({ preventScroll: true });
}

// Put the box below the token, or above it, or wherever all of it can be seen.
function settle(box, span) {
  const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const high = box.offsetHeight;
  const below = at.bottom + 8;
  const above = at.top - high - 8;
  box.style.left = `${Math.max(10, Math.min(at.left - 20, innerWidth - box.offsetWidth - 10))}px`;
  box.style.top = `${Math.max(8, below + high <= innerHeight - 8 || above < 8 ? Math.min(below, innerHeight - high - 8) : above)}px`;
}

function explained(text, place, follow) {
  const entry = text.entries[place];
  const others = entry.top_logprobs ?? [];
  const rank = others.findIndex((one) => one.id === entry.id);
  const bits = -entry.logprob / Math.LN2;
  const told = make("p", { title: t("settled") }, make("b", {}, percent(entry.logprob)), ` ${t("likely")} · `,
    make("b", {}, bits < 10 ? bits.toFixed(1) : bits.toFixed(0)), ` ${t("surprise")} · `,
    rank >= 0 ? t("place", rank + 1) : t("beyond", others.length));
  const list = make("ol", { ariaLabel: t("alternatives") });
  const all = rank >= 0 ? others : [...others, entry];
  for (const one of all) {
    const button = make("button", { type: "button" }, make("code", {}, visible(one.token)),
      make("meter", { min: 0, max: 1, value: Math.exp(one.logprob) }), make("span", { className: "odds" }, percent(one.logprob)));
    button.addEventListener("click", () => preview(text, place, one, follow, button));
    list.append(make("li", { className: one.id === entry.id ? "own" : "" }, button));
  }
  return [make("h2", {}, visible(entry.token)), told, list];
}

// What would have followed an alternative: its likeliest continuation, and the way to take it over.
async function preview(text, place, other, follow, button) {
  shown.abort?.abort();
  const abort = (shown.abort = new AbortController());
  for (const one of shown.box.querySelectorAll("li button")) one.ariaPressed = String(one === button);
  const { model, stops } = text.source;
  const prompt = [...text.idsBefore(place), other.id];
  const path = make("p", { className: "path" }, make("b", {}, other.token.startsWith("bytes:") ? "…" : other.token));
  const take = make("button", { type: "button", onclick: () => { closeWhy(); text.onTakeOver(place, { ...other, top_logprobs: text.entries[place].top_logprobs }); } }, t("takeOver"));
  follow.replaceChildren(make("div", { className: "row" }, make("p", {}, `${t("follow")}:`), take), path);
  try {
    let written = "";
    const body = { model, prompt, max_tokens: PREVIEW, temperature: 0, ...(stops.length ? { stop_token_ids: stops } : {}) };
    for await (const event of stream("/v1/completions", body, abort.signal)) {
      written += event.choices[0]?.text ?? "";
      path.replaceChildren(path.firstChild, written);
      if (shown?.abort !== abort) return;
      settle(shown.box, shown.span);
      follow.scrollIntoView({ block: "nearest" });
    }
    path.append(written ? "…" : t("none"));
  } catch (error) {
    if (error.name !== "AbortError") path.append(` (${error.message})`);
  }
}
