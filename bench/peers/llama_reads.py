"""What llama.cpp makes of a GGUF file: `llama_reads.py < QUESTIONS`, JSON in and out; logits go into a .npy file.

Questions: {"gguf", "threads", "texts": [str], "read": [ids], "write": [ids], "steps", "turns": messages or null,
"logits": where to}.
Answers: {"version", "texts": [ids], "written": [ids], "chat": str or null}.
"""

import json
import sys

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

asked = json.load(sys.stdin)
model = llama_cpp.Llama(
    asked["gguf"],
    n_ctx=512,
    n_threads=asked["threads"],
    n_threads_batch=asked["threads"],
    logits_all=True,
    verbose=False,
    type_k=llama_cpp.GGML_TYPE_F32,
    type_v=llama_cpp.GGML_TYPE_F32,
)
# A text's own "<|end|>" stays text: special is False, and so no prompt can speak for the system.
texts = [model.tokenize(text.encode(), add_bos=False, special=False) for text in asked["texts"]]
model.eval(asked["read"])
np.save(asked["logits"], np.array(model.scores[: len(asked["read"])]))
model.reset()
model.eval(asked["write"])
written = []
for _ in range(asked["steps"]):
    written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
    model.eval(written[-1:])
chat = None
if asked["turns"]:

    def spelled(kind: str) -> str:
        number = int(model.metadata.get(f"tokenizer.ggml.{kind}_token_id", -1))
        return model.detokenize([number], special=True).decode() if number >= 0 else ""

    chat = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], spelled("eos"), spelled("bos"))(
        messages=asked["turns"]
    ).prompt
json.dump({"version": llama_cpp.__version__, "texts": texts, "written": written, "chat": chat}, sys.stdout)
