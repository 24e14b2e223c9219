// Talking to the server: keys, errors, streams. Keeps the key in this tab's session alone.

const KEY = "textmill.key";
export const events = new EventTarget(); // "gone" and "back"

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(body) {
  const key = sessionStorage.getItem(KEY);
  return { ...(body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function askForKey(again) {
  const dialog = document.getElementById("key");
  const form = dialog.querySelector("form");
  dialog.querySelector(".wrong").hidden = !again;
  form.reset();
  if (!dialog.open) dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "ok") throw new Refused(401, dialog.querySelector("h2").textContent);
  sessionStorage.setItem(KEY, form.key.value.trim());
}

// One request; asks for a key if one is needed. Throws Refused with the server's words, or TypeError if it is gone.
let asking = null;
export async function call(path, body, signal) {
  for (let tried = false; ; tried = true) {
    let answer;
    try {
      answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST", headers: headers(body !== undefined), signal,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (error.name !== "AbortError") events.dispatchEvent(new Event("gone"));
      throw error;
    }
    if (answer.status === 401) {
      asking ??= askForKey(tried || sessionStorage.getItem(KEY) !== null).finally(() => { asking = null; });
      await asking;
      continue;
    }
    events.dispatchEvent(new Event("back"));
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      throw new Refused(answer.status, told.error?.message ?? `${answer.status} ${answer.statusText}`);
    }
    return answer;
  }
}

export const get = async (path) => (await call(path)).json();
export const post = async (path, body, signal) => (await call(path, body, signal)).json();

// The data of server-sent events, parsed, one by one.
export async function* stream(path, body, signal) {
  const answer = await call(path, { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      kept += value;
      const parts = kept.split("\n\n");
      kept = parts.pop();
      for (const part of parts) {
        signal?.throwIfAborted(); // what has arrived but was not read yet is not wanted any more
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const found = JSON.parse(data);
        if (found.error) throw new Refused(found.error.code ?? 500, found.error.message);
        yield found;
      }
    }
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Refused)) events.dispatchEvent(new Event("gone"));
    throw error;
  }
  // A stream says when it is done: one that ends without has been cut off.
  events.dispatchEvent(new Event("gone"));
  throw new TypeError("cut off");
}
