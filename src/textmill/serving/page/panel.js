// One model at work: its settings, its text or conversation. Two of them stand side by side.

import { Refused, stream } from "./api.js";
import { make, nextFrame } from "./dom.js";
import { ALTERNATIVES, TokenText, closeWhy } from "./tokens.js";
import { SETTINGS, language, t } from "./words.js";

export class Panel {
  // models: cards of those that write; chat: whether it holds a conversation; index: 0 or 1.
  constructor(models, chat, index, kept, onState) {
    Object.assign(this, { models, chat, onState });
    this.values = { ...Object.fromEntries(SETTINGS.map(([name, , value]) => [name, value])), ...kept?.values };
    this.turns = []; // of a conversation: {role, content}
    this.former = []; // texts to go back to
    const wanted = models.find((one) => one.id === kept?.model) ?? models[Math.min(index, models.length - 1)];
    this.select = make("select", { ariaLabel: t("model"), onchange: () => this.chosen() },
      ...models.map((one) => make("option", { value: one.id, selected: one === wanted }, one.id)));
    this.expect = make("p", { className: "expect" });
    this.out = make("div", { className: "text", role: "log" });
    this.out.setAttribute("aria-live", "off"); // tokens come faster than anyone can listen; the end is announced
    this.status = make("span", { role: "status" });
    this.error = make("span", { className: "wrong", role: "alert" });
    this.undo = make("button", { type: "button", hidden: true, onclick: () => this.goBack() }, t("back"));
    const shade = make("input", { type: "checkbox", onchange: () => this.out.classList.toggle("shaded", shade.checked) });
    this.element = make("section", { className: "panel", ariaLabel: `${t("model")} ${index + 1}` },
      make("div", { className: "top" }, this.select), this.expect, this.knobs(), this.out,
      make("div", { className: "foot" }, this.status, this.error, this.undo, make("label", {}, shade, t("shade"))));
    this.reset();
    this.chosen();
  }

  get model() { return this.models.find((one) => one.id === this.select.value); }
  get busy() { return this.abort !== null && this.abort !== undefined; }
  get kept() { return { model: this.select.value, values: this.values }; }

  async chosen() {
    const card = this.model;
    this.expect.textContent = language() === "zh" ? (card.answers ? "" : t("base")) : card.expect;
    this.onState();
  }

  knobs() {
    const zh = language() === "zh";
    return make("details", { className: "settings" }, make("summary", {}, t("settings")), make("div", { className: "knobs" },
      ...SETTINGS.map(([name, , , min, max, step, label, explained, labelZh, explainedZh]) => make("label", {},
        make("b", {}, zh ? labelZh : label),
        make("input", {
          type: "number", name, min, max, step, value: this.values[name],
          onchange: (event) => { this.values[name] = event.target.value === "" ? "" : Number(event.target.value); this.onState(); },
        }),
        make("small", {}, zh ? explainedZh : explained)))));
  }

  asked() {
    const found = { model: this.select.value, return_token_ids: true };
    for (const [name, off] of SETTINGS) {
      const value = this.values[name];
      if (value !== "" && value !== off) found[name] = value;
    }
    return found;
  }

  reset() {
    closeWhy();
    this.stop();
    this.turns = [];
    this.former = [];
    this.undo.hidden = true;
    this.status.textContent = this.error.textContent = "";
    this.out.replaceChildren(make("span", { className: "empty" }, t(this.chat ? "emptyChat" : "empty")));
  }

  // A fresh place for tokens at the end of the panel.
  place(prompt) {
    if (!this.turns.length) this.out.replaceChildren();
    const text = make("span");
    if (this.chat) {
      this.out.append(
        make("div", { className: "turn user" }, make("span", { className: "who" }, t("you")), prompt),
        make("div", { className: "turn" }, make("span", { className: "who" }, this.select.value), text));
    } else {
      this.out.replaceChildren(make("span", { className: "prompt" }, prompt), text);
    }
    this.tokens = new TokenText(text, { onTakeOver: (place, entry) => this.takeOver(place, entry) });
  }

  async send(prompt) {
    if (this.busy || (this.chat && !prompt.trim())) return;
    this.place(prompt);
    this.former = [];
    let body = { ...this.asked(), logprobs: this.chat ? true : ALTERNATIVES };
    if (this.chat) {
      this.turns.push({ role: "user", content: prompt });
      body = { ...body, top_logprobs: ALTERNATIVES, messages: [...this.turns] };
    } else {
      body = { ...body, prompt };
    }
    const ended = await this.write(this.chat ? "/v1/chat/completions" : "/v1/completions", body);
    if (!this.chat) return;
    if (this.tokens.text || ended === "stop") this.turns.push({ role: "assistant", content: this.tokens.text });
    else this.turns.pop(); // it has to be said again
  }

  // Stream one answer into the current text; says how it ended.
  async write(path, body) {
    const abort = (this.abort = new AbortController());
    const tokens = this.tokens;
    let stops = [];
    this.error.textContent = "";
    this.undo.hidden = true;
    this.element.classList.add("writing");
    const cursor = make("span", { className: "cursor", ariaHidden: "true" }, "▍");
    tokens.element.after(cursor);
    this.onState();
    const began = performance.now();
    const before = tokens.entries.length;
    let ended = "";
    let drawn = 0;
    try {
      if (this.chat) stops = await this.turnEnds(abort.signal);
      tokens.source = { model: body.model, stops };
      if (path === "/v1/completions" && stops.length) body.stop_token_ids = stops;
      for await (const event of stream(path, body, abort.signal)) {
        const choice = event.choices?.[0];
        const prompt = event.prompt_token_ids ?? choice?.prompt_token_ids;
        if (prompt && !tokens.promptIds.length) tokens.promptIds = prompt;
        for (const entry of choice?.logprobs?.content ?? []) if (!stops.includes(entry.id)) tokens.add(entry);
        if (choice?.finish_reason) ended = choice.finish_reason;
        // A fast model's tokens arrive without a gap: the page has to be drawn, and its buttons heard, in between.
        if (performance.now() - drawn > 30) {
          this.follow();
          await nextFrame();
          drawn = performance.now();
        }
      }
      this.follow();
    } catch (error) {
      ended = error.name === "AbortError" ? "stopped" : "broken";
      if (error instanceof Refused) this.error.textContent = `${t("refused")} ${error.message}`;
    }
    cursor.remove();
    this.element.classList.remove("writing");
    if (this.abort === abort) this.abort = null;
    const wrote = tokens.entries.length - before;
    const rate = wrote / ((performance.now() - began) / 1000);
    this.status.textContent = [wrote ? t("tokens", wrote, rate.toFixed(rate < 10 ? 1 : 0)) : "", t("ended")[ended] ?? ""].filter(Boolean).join(" · ");
    this.undo.hidden = !this.former.length;
    this.onState();
    return ended;
  }

  // The tokens that end an answer, for going on from the middle of one.
  async turnEnds(signal) {
    if (!this.model.answers) return [];
    this.ends ??= {};
    const name = this.select.value;
    if (!this.ends[name]) {
      const { call } = await import("./api.js");
      this.ends[name] = (await (await call(`/tokenizer_info?model=${encodeURIComponent(name)}`, undefined, signal)).json()).turn_end_ids;
    }
    return this.ends[name];
  }

  // Keep the end in sight while it grows, unless the reader has scrolled up.
  follow() {
    const root = document.scrollingElement;
    if (root.scrollHeight - root.scrollTop - root.clientHeight < 160) root.scrollTop = root.scrollHeight;
  }

  async takeOver(place, entry) {
    if (this.busy) this.stop();
    const tokens = this.tokens;
    this.former.push(tokens.entries);
    const values = this.asked();
    tokens.cut(place);
    tokens.add(entry, true);
    await this.write("/v1/completions", { ...values, model: tokens.source.model, prompt: tokens.idsBefore(tokens.entries.length), logprobs: ALTERNATIVES });
    this.said();
  }

  goBack() {
    const entries = this.former.pop();
    this.tokens.cut(0);
    for (const entry of entries) this.tokens.add(entry);
    this.undo.hidden = !this.former.length;
    this.said();
  }

  // A conversation goes on from what now stands there.
  said() {
    if (this.chat && this.turns.at(-1)?.role === "assistant") this.turns.at(-1).content = this.tokens.text;
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
  }
}
