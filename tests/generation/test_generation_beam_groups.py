"""Diverse beam search: the texts that a reference in plain Python finds, and texts that do differ."""

import math

import pytest
import torch

from textmill.base.errors import UsageError
from textmill.generation.beam import beam_search

PROMPTS = ("The state of", "We have to", "", "天下")
TINY = 1e-9  # a penalty too small to change anything


def following(model, ids) -> list[float]:
    """Log-probabilities of what follows a text, which is read whole."""
    return model.read(torch.tensor([ids]), model.start(1))[0][0, -1].tolist()


def reference(model, tokenizer, prompt, groups, size, penalty, length_penalty, max_tokens):
    """Algorithm 1 of Vijayakumar et al. (2016), word for word: every text read anew, every candidate listed.

    Each group ends by the rule of `transformers`: when it has `size` texts and its best candidate beats none of them.
    """
    start = [tokenizer.document_end, *tokenizer.encode(prompt)]
    special = set(tokenizer.special.values()) - {tokenizer.document_end}
    open_ = [[((), 0.0)] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    done = [False] * groups
    for step in range(1, max_tokens + 1):
        chosen_before = []
        for g in range(groups):
            if done[g]:
                continue
            candidates = []
            for text, score in open_[g]:
                for token, log_prob in enumerate(following(model, [*start, *text])):
                    if token not in special:
                        candidates.append((score + log_prob - penalty * chosen_before.count(token), (*text, token)))
            candidates.sort(key=lambda one: -one[0])
            going = []
            for rank, (score, text) in enumerate(candidates[: 2 * size]):
                if text[-1] == tokenizer.document_end or step == max_tokens:
                    if rank < size:
                        finished[g].append((score / step**length_penalty, text))
                elif len(going) < size:
                    going.append((text, score))
            finished[g] = sorted(finished[g], key=lambda one: -one[0])[:size]
            if going and len(finished[g]) == size:
                done[g] = going[0][1] / step**length_penalty <= finished[g][-1][0]
            open_[g] = going
            chosen_before += [] if done[g] else [text[-1] for text, _ in going]
    best = {}
    for score, text in sorted((one for each in finished for one in each), key=lambda one: -one[0]):
        best.setdefault(text, score)
    return list(best.items())


@pytest.mark.parametrize(
    ("groups", "size", "penalty", "length_penalty"),
    [(1, 3, 0.0, 1.0), (2, 2, 0.7, 1.0), (3, 1, 2.0, 0.0), (2, 3, 5.0, 1.5)],
)
def test_groups_find_what_the_algorithm_finds(gpt2, tokenizer, groups, size, penalty, length_penalty):
    model, _ = gpt2
    ended = 0
    for prompt in PROMPTS:
        found = beam_search(
            model, tokenizer, [prompt], groups * size, groups=groups, diversity_penalty=penalty,
            length_penalty=length_penalty, max_tokens=8, best=groups * size,
        )[0]  # fmt: skip
        expected = reference(model, tokenizer, prompt, groups, size, penalty, length_penalty, 8)
        ends = [(tokenizer.document_end,) if text.finish_reason == "end" else () for text in found]
        assert [text.ids + end for text, end in zip(found, ends, strict=True)] == [text for text, _ in expected]
        assert [text.score for text in found] == pytest.approx([score for _, score in expected], rel=1e-4)
        ended += sum(map(len, ends))
    assert ended  # both ways of finishing were seen


def test_an_ngram_in_groups_finds_what_the_algorithm_finds(ngram, tokenizer):
    found = beam_search(ngram, tokenizer, ["We have"], 4, groups=2, diversity_penalty=1.0, max_tokens=6, best=4)[0]
    expected = reference(ngram, tokenizer, "We have", 2, 2, 1.0, 1.0, 6)
    assert [text.ids for text in found] == [text for text, _ in expected]


@pytest.mark.parametrize("family", ["ngram", "transformer"])
def test_with_next_to_no_penalty_every_group_finds_what_plain_beams_find(family, request, tokenizer):
    model = request.getfixturevalue(family)
    plain = beam_search(model, tokenizer, list(PROMPTS), 3, max_tokens=8, best=3)
    grouped = beam_search(
        model, tokenizer, list(PROMPTS), 9, groups=3, diversity_penalty=TINY, max_tokens=8, best=9
    )  # the same text of several groups is given once
    assert [[text.ids for text in texts] for texts in grouped] == [[text.ids for text in texts] for texts in plain]


def test_a_large_penalty_makes_every_group_begin_otherwise(transformer, ngram, tokenizer):
    for model in (transformer, ngram):
        texts = beam_search(model, tokenizer, ["We"], 5, groups=5, diversity_penalty=50.0, max_tokens=6, best=5)[0]
        assert len({text.ids[0] for text in texts}) == 5
        likeliest = sorted(following(model, [tokenizer.document_end, *tokenizer.encode("We")]), reverse=True)
        firsts = [following(model, [tokenizer.document_end, *tokenizer.encode("We")])[text.ids[0]] for text in texts]
        assert sorted(firsts, reverse=True) == pytest.approx(likeliest[:5], abs=1e-4)


def test_log_prob_is_the_models_own_and_the_score_has_the_penalties_off(transformer, tokenizer):
    texts = beam_search(
        transformer, tokenizer, ["We"], 4, groups=4, diversity_penalty=0.5, length_penalty=0.0, max_tokens=5, best=4
    )[0]
    prompt = [tokenizer.document_end, *tokenizer.encode("We")]
    paid = []
    for text in texts:
        tokens = [*text.ids, *([tokenizer.document_end] if text.finish_reason == "end" else [])]
        own = sum(following(transformer, [*prompt, *tokens[:i]])[token] for i, token in enumerate(tokens))
        assert text.log_prob == pytest.approx(own, abs=1e-3)
        paid.append(text.log_prob - text.score)
    assert min(paid) == pytest.approx(0, abs=1e-3)  # the first group pays nothing
    assert max(paid) > 0.4


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"beams": 4, "groups": 3, "diversity_penalty": 0.5}, "cannot be divided"),
        ({"beams": 4, "groups": 0}, "too few"),
        ({"beams": 4, "groups": 8, "diversity_penalty": 0.5}, "cannot be divided"),
        ({"beams": 4, "groups": 2}, "would have no effect"),
        ({"beams": 4, "diversity_penalty": 0.5}, "would have no effect"),
        ({"beams": 4, "groups": 2, "diversity_penalty": -1.0}, "not possible"),
        ({"beams": 4, "groups": 2, "diversity_penalty": math.nan}, "not possible"),
    ],
)
def test_impossible_groups_are_refused(bad, told, transformer, tokenizer):
    with pytest.raises(UsageError, match=told) as caught:
        beam_search(transformer, tokenizer, ["We"], **bad)
    assert caught.value.fix
