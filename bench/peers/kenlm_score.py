"""Score a text with the kenlm Python module, a sentence at a time: `kenlm_score.py MODEL TEXT`. Prints JSON."""

import json
import sys
import time

import kenlm

model = kenlm.Model(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as text:  # noqa: PTH123
    lines = text.read().split("\n")[:-1]
score = model.score
best = float("inf")
for _ in range(3):
    began = time.process_time()
    scores = [score(line) for line in lines]
    best = min(best, time.process_time() - began)
print(json.dumps({"seconds": best, "log10": sum(scores), "lines": len(lines)}))
