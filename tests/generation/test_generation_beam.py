"""Beam search: the texts that `transformers` finds, whatever the family's state looks like inside."""

import itertools
import math

import pytest
import torch

from textmill.base.errors import UsageError
from textmill.generation.beam import beam_search
from textmill.generation.config import SamplingConfig
from textmill.generation.rows import Rows
from textmill.generation.sampling import generate
from textmill.models.encoder_decoder.config import t5_arrangement
from textmill.models.encoder_decoder.model import EncoderDecoder

PROMPTS = ("The state of", "We have to", "", "天下")


def _theirs(stock, tokenizer, ids, beams, length_penalty, max_tokens, best, **more):
    """What `generate` of transformers finds: (tokens without the end, score), best first."""
    ends = {tokenizer.document_end}
    found = stock.generate(
        **ids,
        num_beams=beams,
        length_penalty=length_penalty,
        max_new_tokens=max_tokens,
        num_return_sequences=best,
        do_sample=False,
        eos_token_id=tokenizer.document_end,
        pad_token_id=tokenizer.document_end,
        suppress_tokens=sorted(set(tokenizer.special.values()) - ends),
        return_dict_in_generate=True,
        output_scores=True,
        **more,
    )
    prompt = ids["input_ids"].shape[1] if "decoder_input_ids" not in ids else ids["decoder_input_ids"].shape[1]
    texts = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        text = row[prompt:]
        texts.append((text[: text.index(tokenizer.document_end)] if tokenizer.document_end in text else text, score))
    return texts


@pytest.mark.parametrize(
    ("beams", "length_penalty", "early"),
    [(1, 1.0, False), (3, 1.0, False), (4, 0.0, False), (4, 2.0, True), (5, -1.0, True)],
)
def test_a_decoder_finds_what_transformers_finds(gpt2, tokenizer, beams, length_penalty, early):
    model, stock = gpt2
    ended = 0
    for prompt in PROMPTS:
        found = beam_search(
            model, tokenizer, [prompt], beams, length_penalty=length_penalty, max_tokens=14, best=beams, early=early
        )[0]
        ids = torch.tensor([[tokenizer.document_end, *tokenizer.encode(prompt)]])
        if beams == 1:  # transformers then searches without scores
            expected = generate(model, tokenizer, [prompt], SamplingConfig(temperature=0, max_tokens=14))
            assert found[0].ids == expected[0].ids
            continue
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = _theirs(stock, tokenizer, given, beams, length_penalty, 14, beams, early_stopping=early)
        assert [list(text.ids) for text in found] == [text for text, _ in expected]
        assert [text.score for text in found] == pytest.approx([score for _, score in expected], rel=1e-4)
        ended += sum(text.finish_reason == "end" for text in found)
    assert ended or beams == 1  # both ways of finishing were seen


@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 1.0), (4, 0.5)])
def test_an_encoder_decoder_finds_what_transformers_finds(tokenizer, random_weights, tmp_path, beams, length_penalty):
    transformers = pytest.importorskip("transformers")
    config = t5_arrangement(
        vocabulary=tokenizer.vocabulary, context=64, encoder_layers=2, decoder_layers=2, width=32, heads=2,
        head_size=16, hidden=64, document_end=tokenizer.document_end,
    )  # fmt: skip
    model = random_weights(EncoderDecoder(config))
    model.save(tmp_path, tokenizer.document_end)
    stock = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    sources = ["The state of the union", "We", "天下大势"]
    found = beam_search(
        model, tokenizer, [""] * 3, beams, length_penalty=length_penalty, max_tokens=12, best=beams, sources=sources
    )
    for source, texts in zip(sources, found, strict=True):
        ids = torch.tensor([[*tokenizer.encode(source), tokenizer.document_end]])
        given = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "decoder_input_ids": torch.tensor([[tokenizer.document_end]]),
        }
        expected = _theirs(stock, tokenizer, given, beams, length_penalty, 12, beams)
        assert [list(text.ids) for text in texts] == [text for text, _ in expected]
        assert [text.score for text in texts] == pytest.approx([score for _, score in expected], rel=1e-3)


def _log_prob(model, tokenizer, prompt, tokens) -> float:
    """Log-probability of a text with forbidden tokens left as they are: the model's own."""
    ids = [tokenizer.document_end, *tokenizer.encode(prompt), *tokens]
    log_probs, _ = model.read(torch.tensor([ids[:-1]]), model.start(1))
    start = len(ids) - len(tokens) - 1
    return sum(float(log_probs[0, start + i, token]) for i, token in enumerate(tokens))


@pytest.mark.parametrize("family", ["ngram", "transformer"])
def test_scores_are_the_models_own_and_more_beams_find_likelier_texts(family, request, tokenizer):
    model = request.getfixturevalue(family)
    for prompt in ("The state of", "春眠不"):
        likeliest = []
        for beams in (1, 8):
            (text, *_) = beam_search(model, tokenizer, [prompt], beams, length_penalty=0.0, max_tokens=6)[0]
            tokens = [*text.ids, *([tokenizer.document_end] if text.finish_reason == "end" else [])]
            assert text.log_prob == pytest.approx(_log_prob(model, tokenizer, prompt, tokens), abs=1e-3)
            assert text.score == text.log_prob
            assert text.text == tokenizer.decode(text.ids)
            likeliest.append(text.log_prob)
        assert likeliest[1] >= likeliest[0] - 1e-4


def test_with_enough_beams_it_finds_the_likeliest_of_all(tokenizer, ngram):
    """Every continuation by two tokens, scored one by one."""
    prompt = "The Congress of the United"
    ids = torch.tensor([[tokenizer.document_end, *tokenizer.encode(prompt)]])
    allowed = sorted(set(range(tokenizer.vocabulary)) - set(tokenizer.special.values()))
    first = ngram.read(ids, ngram.start(1))[0][0, -1]
    read = torch.cat((ids.expand(len(allowed), -1), torch.tensor(allowed)[:, None]), 1)
    second = torch.cat([ngram.read(part, ngram.start(len(part)))[0][:, -1] for part in read.split(64)])[:, allowed]
    values = first[allowed][:, None] + second
    place = int(values.argmax())
    best = (allowed[place // len(allowed)], allowed[place % len(allowed)])
    texts = beam_search(ngram, tokenizer, [prompt], 50, length_penalty=0.0, max_tokens=2, best=50)[0]
    whole = next(text for text in texts if text.finish_reason == "length")  # the best that did not end before
    assert whole.ids == best
    assert whole.score == pytest.approx(float(values.max()), abs=1e-4)


def test_prompts_of_several_lengths_are_each_searched_as_if_alone(transformer, tokenizer):
    together = beam_search(transformer, tokenizer, list(PROMPTS), 3, max_tokens=8, best=3)
    for prompt, texts in zip(PROMPTS, together, strict=True):
        alone = beam_search(transformer, tokenizer, [prompt], 3, max_tokens=8, best=3)[0]
        assert [text.ids for text in texts] == [text.ids for text in alone]


class Odd:
    """A model whose state shows no rows: one flat tensor that holds all of them."""

    def __init__(self, model) -> None:
        self.inner, self.vocabulary, self.context = model, model.vocabulary, model.context

    def start(self, batch):
        return torch.zeros(0, dtype=torch.int64), batch

    def read(self, tokens, state):
        flat, batch = state
        whole = torch.cat((flat.view(batch, -1), tokens), 1)
        log_probs, _ = self.inner.read(whole, self.inner.start(batch))
        return log_probs[:, -tokens.shape[1] :], (whole.flatten(), batch)


def test_a_state_that_cannot_be_reordered_gives_the_same_texts(ngram, tokenizer):
    odd = Odd(ngram)
    assert Rows(odd, torch.zeros(2, 2, dtype=torch.int64), 2).examples is None
    assert Rows(ngram, torch.zeros(2, 2, dtype=torch.int64), 2).examples is not None
    prompts = ["The state of", "天下"]
    expected = beam_search(ngram, tokenizer, prompts, 4, max_tokens=6, best=4)
    found = beam_search(odd, tokenizer, prompts, 4, max_tokens=6, best=4)
    assert [[text.ids for text in texts] for texts in found] == [[text.ids for text in texts] for texts in expected]


def test_no_special_token_is_written_and_texts_differ(transformer, tokenizer):
    texts = beam_search(transformer, tokenizer, ["We"], 6, max_tokens=5, best=6)[0]
    assert len({text.ids for text in texts}) == 6
    assert not any(set(text.ids) & set(tokenizer.special.values()) for text in texts)
    assert all(left.score >= right.score for left, right in itertools.pairwise(texts))


@pytest.mark.parametrize(
    "bad", [{"beams": 0}, {"beams": 2, "best": 3}, {"max_tokens": 0}, {"length_penalty": math.nan}, {"sources": ["a"]}]
)
def test_impossible_searches_are_refused(bad, transformer, tokenizer):
    with pytest.raises(UsageError):
        beam_search(transformer, tokenizer, ["We"], **bad)
