"""Fit NLTK's Kneser-Ney and score some words: `nltk_ngrams.py TRAIN TEST ORDER WORDS`. Prints JSON."""

import json
import sys
import time
from pathlib import Path

from nltk.lm import KneserNeyInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline

order, words = int(sys.argv[3]), int(sys.argv[4])
train = [line.split() for line in Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")[:-1]]
test = [line.split() for line in Path(sys.argv[2]).read_text(encoding="utf-8").split("\n")[:-1]]
began = time.process_time()
model = KneserNeyInterpolated(order)
model.fit(*padded_everygram_pipeline(order, train))
fitted = time.process_time()
scored = 0
for sentence in test:
    padded = ["<s>"] * (order - 1) + sentence
    for at in range(order - 1, len(padded)):
        model.score(padded[at], padded[at - order + 1 : at])
        scored += 1
        if scored == words:
            break
    if scored == words:
        break
print(json.dumps({"fit": fitted - began, "score": time.process_time() - fitted, "words": scored}))
