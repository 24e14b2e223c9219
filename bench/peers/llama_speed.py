"""llama.cpp's speed through its Python binding's low-level calls: `llama_speed.py GGUF THREADS`. Prints JSON.

Decode of one sequence, prefill of a prompt, and eight sequences at once, as bench/serving.py does them with ours.
"""

import json
import sys
import time

import llama_cpp as ll

PROMPT, STEPS, ROWS, PREFILL = 32, 64, 8, 512
path, threads = sys.argv[1], int(sys.argv[2])
QUIET = ll.llama_log_callback(lambda *_: None)  # kept: llama.cpp calls it to the end
ll.llama_log_set(QUIET, None)
ll.llama_backend_init()
model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
settings = ll.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 4096, 512, 512, ROWS
settings.n_threads = settings.n_threads_batch = threads
context = ll.llama_init_from_model(model, settings)
memory = ll.llama_get_memory(context)
vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
batch = ll.llama_batch_init(512, 0, ROWS)


def read(items):
    """Decode (token, position, row, wanted) items in one call."""
    batch.n_tokens = len(items)
    for i, (token, position, row, wanted) in enumerate(items):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
        batch.seq_id[i][0] = row
    assert ll.llama_decode(context, batch) == 0


def best(place):
    """The likeliest token after an item (a scan in numpy, as cheap as it gets in Python)."""
    import numpy as np

    logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, place), (vocabulary,))
    return int(logits.argmax())


tokens = [1 + i % 1000 for i in range(PREFILL)]
found = {}
for _attempt in range(2):  # the first warms up
    ll.llama_memory_clear(memory, True)
    began = time.perf_counter()
    read([(token, i, 0, i == PREFILL - 1) for i, token in enumerate(tokens)])
    best(PREFILL - 1)
    found["prefill"] = PREFILL / (time.perf_counter() - began)
    ll.llama_memory_clear(memory, True)
    read([(token, i, 0, i == PROMPT - 1) for i, token in enumerate(tokens[:PROMPT])])
    token = best(PROMPT - 1)
    began = time.perf_counter()
    for step in range(STEPS):
        read([(token, PROMPT + step, 0, True)])
        token = best(0)
    found["decode"] = STEPS / (time.perf_counter() - began)
    ll.llama_memory_clear(memory, True)
    read([(token, i, row, i == PROMPT - 1) for row in range(ROWS) for i, token in enumerate(tokens[:PROMPT])])
    began = time.perf_counter()
    for step in range(STEPS // 2):
        read([(7 + row, PROMPT + step, row, True) for row in range(ROWS)])
        [best(row) for row in range(ROWS)]
    found["eight"] = ROWS * (STEPS // 2) / (time.perf_counter() - began)
print(json.dumps(found))
