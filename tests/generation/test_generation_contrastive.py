"""Contrastive search: what a reference in plain Python finds from the hidden vectors of whole texts, for every family
that gives them."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.constraints import ConstraintSpec, compile_constraint
from textmill.generation.contrastive import ContrastiveSearch
from textmill.generation.sampling import generate
from textmill.models.encoder_decoder.config import t5_arrangement
from textmill.models.encoder_decoder.model import EncoderDecoder
from textmill.models.hmm import HiddenMarkov, HiddenMarkovConfig
from textmill.models.recurrent import Gru, Lstm, MinGru, MinGruConfig, RecurrentConfig
from textmill.models.state_space import Mamba, StateSpaceConfig

PROMPTS = ("The state of", "We have to", "", "天下")


def reference(vectors, tokenizer, start, alpha, k, max_tokens):
    """Equation 5 of Su et al. (2022), number by number; `vectors` gives hidden vectors and logits of a whole text."""
    barred = set(tokenizer.special.values()) - {tokenizer.document_end}
    ids = list(start)
    while len(ids) < len(start) + max_tokens:
        hidden, logits = vectors(ids)
        scores = [-math.inf if token in barred else float(value) for token, value in enumerate(logits[-1])]
        highest = max(scores)
        total = sum(math.exp(score - highest) for score in scores)
        likeliest = sorted(range(len(scores)), key=lambda token: -scores[token])[:k]
        before = [unit(vector) for vector in hidden]
        best, chosen = -math.inf, -1
        for token in likeliest:
            new = unit(vectors([*ids, token])[0][-1])
            alike = max(float(new @ vector) for vector in before)
            value = (1 - alpha) * math.exp(scores[token] - highest) / total - alpha * alike
            if value > best:
                best, chosen = value, token
        if chosen == tokenizer.document_end:
            break
        ids.append(chosen)
    return ids[len(start) :]


def unit(vector):
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def settings(k: int = 4, max_tokens: int = 12, **more) -> SamplingConfig:
    return SamplingConfig(top_k=k, max_tokens=max_tokens, **more)


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.3, 8), (0.9, 2), (1.0, 5)])
def test_a_decoder_writes_what_the_stock_classs_vectors_say(gpt2, tokenizer, alpha, k):
    model, stock = gpt2

    @torch.no_grad()
    def vectors(ids):
        out = stock(torch.tensor([ids]), output_hidden_states=True)
        return out.hidden_states[-1][0].numpy(), out.logits[0].numpy()

    search = ContrastiveSearch(model, tokenizer, alpha)
    greedy = 0
    for prompt in PROMPTS:
        (found,) = search.generate(prompt, settings(k))
        start = [tokenizer.document_end, *tokenizer.encode(prompt)]
        assert list(found.ids) == reference(vectors, tokenizer, start, alpha, k, 12)
        likeliest = generate(model, tokenizer, [prompt], SamplingConfig(temperature=0, max_tokens=12))[0]
        greedy += found.ids == likeliest.ids
    assert greedy < len(PROMPTS)  # the penalty did something


SHAPES = {
    "lstm": lambda size: Lstm(RecurrentConfig(kind="lstm", vocabulary=size, layers=2, width=24)),
    "gru": lambda size: Gru(RecurrentConfig(kind="gru", vocabulary=size, layers=1, width=24)),
    "mingru": lambda size: MinGru(MinGruConfig(vocabulary=size, layers=2, width=32)),
    "mamba": lambda size: Mamba(StateSpaceConfig(vocabulary=size, layers=1, width=32, head=16, state=8)),
}


@pytest.mark.parametrize("family", SHAPES)
def test_recurrent_families_write_what_their_vectors_say(family, tokenizer, random_weights):
    model = random_weights(SHAPES[family](tokenizer.vocabulary), 0.5)

    @torch.no_grad()
    def vectors(ids):
        hidden, _ = model.hidden(torch.tensor([ids]), model.start(1))
        return hidden[0].numpy(), model.logits(hidden)[0].numpy()

    for prompt in PROMPTS:
        (found,) = ContrastiveSearch(model, tokenizer, 0.6).generate(prompt, settings(5))
        start = [tokenizer.document_end, *tokenizer.encode(prompt)]
        assert list(found.ids) == reference(vectors, tokenizer, start, 0.6, 5, 12)


def test_an_encoder_decoder_reads_its_source_first(tokenizer, random_weights, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = t5_arrangement(
        vocabulary=tokenizer.vocabulary, context=64, encoder_layers=2, decoder_layers=2, width=32, heads=2,
        head_size=16, hidden=64, document_end=tokenizer.document_end,
    )  # fmt: skip
    model = random_weights(EncoderDecoder(config))
    model.save(tmp_path, tokenizer.document_end)
    stock = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    for source in ("The state of the union", "天下大势"):
        read = torch.tensor([[*tokenizer.encode(source), tokenizer.document_end]])

        @torch.no_grad()
        def vectors(ids, read=read):
            out = stock(input_ids=read, decoder_input_ids=torch.tensor([ids]), output_hidden_states=True)
            return out.decoder_hidden_states[-1][0].numpy(), out.logits[0, :, : tokenizer.vocabulary].numpy()

        (found,) = ContrastiveSearch(model, tokenizer, 0.5, source).generate("", settings())
        assert list(found.ids) == reference(vectors, tokenizer, [tokenizer.document_end], 0.5, 4, 12)


def test_a_text_longer_than_the_context_goes_on(transformer, gpt2, tokenizer):
    """A window that slides, and a table of positions that starts over."""
    for model in (transformer, gpt2[0]):
        (found,) = ContrastiveSearch(model, tokenizer, 0.6).generate("We", settings(3, 90, ignore_eos=True))
        assert len(found.ids) == 90


def test_with_next_to_no_penalty_it_takes_the_likeliest(transformer, tokenizer):
    for prompt in PROMPTS:
        (found,) = ContrastiveSearch(transformer, tokenizer, 1e-9).generate(prompt, settings())
        (expected,) = generate(transformer, tokenizer, [prompt], SamplingConfig(temperature=0, max_tokens=12))
        assert found.ids == expected.ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_it_repeats_less_than_the_likeliest_tokens_do(transformer, tokenizer):
    def repeated(ids):
        return len(ids) - len(set(itertools.pairwise(ids)))

    plain = generate(
        transformer, tokenizer, list(PROMPTS), SamplingConfig(temperature=0, max_tokens=60, ignore_eos=True)
    )
    search = ContrastiveSearch(transformer, tokenizer, 0.6)
    contrasted = [search.generate(prompt, settings(8, 60, ignore_eos=True))[0] for prompt in PROMPTS]
    assert sum(repeated(text.ids) for text in contrasted) < 0.5 * sum(repeated(text.ids) for text in plain)


def test_a_stream_is_the_same_text_and_the_model_is_left_alone(transformer, tokenizer):
    search = ContrastiveSearch(transformer, tokenizer, 0.6)
    events = list(search.stream("We have", settings(logprobs=2)))
    (whole,) = search.generate("We have", settings(logprobs=2))
    assert "".join(event.text for event in events) == whole.text == events[-1].generation.text
    assert [event.token for event in events[:-1]] == list(whole.ids)
    assert all(len(top) == 2 for top in whole.top_logprobs)
    assert "logits" not in vars(transformer)
    assert torch.is_grad_enabled()


def test_stops_constraints_and_other_settings_hold(transformer, tokenizer):
    search = ContrastiveSearch(transformer, tokenizer, 0.6)
    (free,) = search.generate("We", settings())
    stop = free.text[4:6]
    (stopped,) = search.generate("We", settings(stop=(stop,)))
    assert stopped.finish_reason == "stop"
    assert free.text.startswith(stopped.text)
    assert stop not in stopped.text
    allowed = tuple(tokenizer.encode("abcde"))
    (few,) = search.generate("We", settings(min_tokens=12, ignore_eos=True))
    assert len(few.ids) == 12
    (few,) = search.generate("We", settings(allowed_token_ids=allowed, min_tokens=12))
    assert set(few.ids) <= set(allowed)
    assert len(few.ids) == 12
    for pattern in ("[0-9]{4}-[0-9]{2}", "(yes|no)", "a"):
        constraint = compile_constraint(ConstraintSpec(regex=pattern), tokenizer, transformer.vocabulary)
        (found,) = search.generate("We", settings(max_tokens=20), constraint=constraint)
        assert re.fullmatch(pattern, found.text)
        assert found.finish_reason == "end"


def test_damaged_weights_are_told(tokenizer, random_weights):
    model = random_weights(SHAPES["gru"](tokenizer.vocabulary))
    with torch.no_grad():
        model.embedding.weight[:] = math.nan
    with pytest.raises(Failure, match="cannot say"):
        ContrastiveSearch(model, tokenizer, 0.6).generate("We", settings())


def test_families_without_hidden_vectors_are_refused(ngram, tokenizer):
    hmm = HiddenMarkov(HiddenMarkovConfig(vocabulary=tokenizer.vocabulary, states=4))
    for model, label in ((ngram, "n-gram"), (hmm, "hidden Markov")):
        with pytest.raises(UsageError, match=f"{label}.*no hidden vectors") as caught:
            ContrastiveSearch(model, tokenizer, 0.6)
        assert caught.value.why
        assert "--dry-multiplier" in caught.value.fix


@pytest.mark.parametrize(
    ("alpha", "config", "told"),
    [
        (0.0, {}, "penalty_alpha is 0"),
        (1.5, {}, "penalty_alpha is 1.5"),
        (math.nan, {}, "penalty_alpha is nan"),
        (0.6, {"top_k": 0}, "top_k is 0"),
        (0.6, {"top_k": 1}, "top_k is 1"),
        (0.6, {"n": 2}, "2 samples"),
        (0.6, {"temperature": 0.5}, "temperature would have no effect"),
        (0.6, {"seed": 3}, "seed would have no effect"),
        (0.6, {"repetition_penalty": 1.2}, "repetition_penalty would have no effect"),
    ],
)
def test_impossible_settings_are_refused(alpha, config, told, transformer, tokenizer):
    with pytest.raises(UsageError, match=told) as caught:
        ContrastiveSearch(transformer, tokenizer, alpha).generate("We", SamplingConfig(**{"top_k": 4, **config}))
    assert caught.value.fix


def test_a_source_for_a_model_without_an_encoder_is_refused(transformer, tokenizer):
    with pytest.raises(UsageError, match="takes no source"):
        ContrastiveSearch(transformer, tokenizer, 0.6, "The state of the union")
