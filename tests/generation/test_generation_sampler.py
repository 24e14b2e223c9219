"""One sample's choices: the distribution that is drawn from, penalties by their definitions, what is never written."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.repeats import BadWords, DontRepeat
from textmill.generation.sampler import Sampler, choose
from textmill.generation.sampling import generate, stream
from textmill.models.ngram import NGram
from textmill.tokens.tokenizer import Tokenizer

PLAIN: dict[str, Any] = {"temperature": 1.0, "min_p": 0.0}


def log_probs_of(tokenizer: Tokenizer, seed: int = 0, spread: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, tokenizer.vocabulary, generator=generator) * spread).log_softmax(-1)


def sampler_of(tokenizer: Tokenizer, config: SamplingConfig, prompt: tuple[int, ...] = (), **more: Any) -> Sampler:
    return Sampler(config, tokenizer, tokenizer.vocabulary, prompt, **more)


@pytest.mark.parametrize("extra", [{}, {"top_k": 20}, {"temperature": 0.5, "top_p": 0.7}])
def test_draws_follow_the_distribution(tokenizer: Tokenizer, extra: dict[str, Any]) -> None:
    from scipy.stats import chisquare

    config = SamplingConfig(**{**PLAIN, **extra}, ignore_eos=True)
    log_probs = log_probs_of(tokenizer)
    log_probs[0, list(tokenizer.special.values())] = -math.inf
    log_probs = log_probs.log_softmax(-1)
    from textmill.generation import processors

    expected = processors.truncate(log_probs, config)[0].softmax(-1).double().numpy()
    drawn = np.zeros(len(expected))
    size = 256
    for start in range(0, 8000, size):
        samplers = [sampler_of(tokenizer, config, seed=start + i) for i in range(size)]
        for choice in choose(samplers, log_probs.expand(size, -1)):
            drawn[choice.token] += 1
    assert drawn[expected == 0].sum() == 0
    common = expected * drawn.sum() >= 5
    seen = [*drawn[common], drawn[~common].sum()]
    wanted = [*expected[common] * drawn.sum(), expected[~common].sum() * drawn.sum()]
    seen, wanted = zip(*[(a, b) for a, b in zip(seen, wanted, strict=True) if b > 0], strict=True)
    assert chisquare(seen, np.array(wanted) * sum(seen) / sum(wanted)).pvalue > 1e-4


def test_a_choice_depends_on_its_own_seed_row_and_place_alone(tokenizer: Tokenizer) -> None:
    config = SamplingConfig(**PLAIN)
    log_probs = torch.cat([log_probs_of(tokenizer, seed) for seed in range(4)])
    together = choose([sampler_of(tokenizer, config, seed=7, row=row) for row in range(4)], log_probs)
    alone = [choose([sampler_of(tokenizer, config, seed=7, row=row)], log_probs[row : row + 1])[0] for row in range(4)]
    assert together == alone
    mixed = [sampler_of(tokenizer, dataclasses.replace(config, top_k=1 + row), seed=7, row=row) for row in range(4)]
    assert choose(mixed, log_probs)[0].token == int(log_probs[0].masked_fill(mixed[0].forbidden, -math.inf).argmax())


def test_alternatives_are_the_models_own(tokenizer: Tokenizer) -> None:
    config = SamplingConfig(temperature=0, logprobs=3, repetition_penalty=1.5)
    log_probs = log_probs_of(tokenizer)
    (choice,) = choose([sampler_of(tokenizer, config)], log_probs)
    values, ids = log_probs[0].topk(3)
    assert [token for token, _ in choice.top] == ids.tolist()
    assert [value for _, value in choice.top] == pytest.approx(values.tolist())
    assert choice.logprob == pytest.approx(log_probs[0, choice.token].item())


def test_presence_and_frequency_count_what_was_written_and_not_the_prompt(tokenizer: Tokenizer) -> None:
    config = SamplingConfig(temperature=0, presence_penalty=1.0, frequency_penalty=0.5)
    sampler = sampler_of(tokenizer, config, prompt=(300, 301))
    for token in (310, 310, 311):
        sampler.accept(token)
    scores = torch.zeros(tokenizer.vocabulary)
    sampler._adjust(scores)
    assert scores[[300, 301, 310, 311, 312]].tolist() == [0, 0, -2.0, -1.5, 0]


def dry_by_definition(text: list[int], multiplier: float, base: float, allowed: int, breakers: set[int]) -> dict:
    """The longest suffix of the text that ends at an earlier place, for the token that came after it."""
    found: dict[int, float] = {}
    for end in range(1, len(text)):
        length = 0
        while length < end and text[end - 1 - length] == text[-1 - length] and text[-1 - length] not in breakers:
            length += 1
        if length >= allowed:
            penalty = multiplier * base ** (length - allowed)
            found[text[end]] = max(found.get(text[end], 0.0), penalty)
    return found


@given(
    text=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    allowed=st.integers(1, 3),
    breakers=st.sets(st.integers(0, 3), max_size=1),
)
@settings(max_examples=300, deadline=None)
def test_dry_is_its_definition(text: list[int], allowed: int, breakers: set[int]) -> None:
    dry = DontRepeat(0.8, 1.75, allowed, 0, frozenset(breakers))
    for token in text:
        dry.add([token])
    tokens, penalties = dry.penalties()
    expected = dry_by_definition(text, 0.8, 1.75, allowed, breakers)
    assert dict(zip(tokens.tolist(), penalties.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)


def test_dry_looks_back_only_so_far(tokenizer: Tokenizer) -> None:
    dry = DontRepeat(1.0, 2.0, 1, 4, frozenset())
    dry.add([1, 2, 3, 4, 5, 1])
    assert len(dry.penalties()[0]) == 0  # the earlier 1 is too far back


@pytest.mark.parametrize("word", ["the", " the ", "ing", "States", "e", "天下", "不"])
def test_a_bad_word_is_never_written_however_it_is_cut(ngram: NGram, tokenizer: Tokenizer, word: str) -> None:
    config = SamplingConfig(temperature=1.2, min_p=0.0, bad_words=(word,), max_tokens=120, n=3, seed=5)
    for prompt in ("The United St", "天", ""):
        for sample in generate(ngram, tokenizer, [prompt], config):
            assert word not in sample.text
            assert word not in prompt or word not in sample.text
            assert word not in prompt[-len(word) :] + sample.text or word in prompt


def test_every_token_that_completes_a_word_is_banned_and_no_other(tokenizer: Tokenizer) -> None:
    bad = BadWords(tokenizer, ("ation",))
    for tail in (b"", b"a", b"nat", b"statio", b"xyz"):
        banned = set(bad.banned(tail[-bad.longest :]).tolist())
        for token in range(tokenizer.vocabulary):
            piece = tokenizer.decode_bytes([token])
            completes = bool(piece) and (tail + piece).count(b"ation") > tail.count(b"ation")
            assert (token in banned) == completes, (tail, piece)


def test_allowed_tokens_are_the_only_ones(ngram: NGram, tokenizer: Tokenizer) -> None:
    allowed = tuple(tokenizer.encode(" the people of"))
    config = SamplingConfig(**PLAIN, allowed_token_ids=allowed, ignore_eos=True, max_tokens=50, seed=1)
    assert set(generate(ngram, tokenizer, ["of the"], config)[0].ids) <= set(allowed)


def test_a_bias_makes_sure_and_rules_out(ngram: NGram, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode("z")[0]
    sure = SamplingConfig(temperature=0, logit_bias={str(token): 100.0}, max_tokens=5)
    assert set(generate(ngram, tokenizer, ["a"], sure)[0].ids) == {token}
    usual = generate(ngram, tokenizer, ["The"], SamplingConfig(temperature=0, max_tokens=1))[0].ids[0]
    never = SamplingConfig(temperature=0, logit_bias={str(usual): -100.0}, max_tokens=1)
    assert generate(ngram, tokenizer, ["The"], never)[0].ids[0] != usual


def test_min_tokens_puts_off_every_end(ngram: NGram, tokenizer: Tokenizer) -> None:
    end = {str(tokenizer.document_end): 50.0}
    assert generate(ngram, tokenizer, ["a"], SamplingConfig(temperature=0, logit_bias=end))[0].ids == ()
    after = SamplingConfig(temperature=0, logit_bias=end, min_tokens=7)
    sample = generate(ngram, tokenizer, ["a"], after)[0]
    assert len(sample.ids) == 7
    assert sample.finish_reason == "end"
    stopped = SamplingConfig(temperature=0, min_tokens=10, max_tokens=60, stop=("e",))
    assert len(generate(ngram, tokenizer, ["The"], stopped)[0].ids) > 10


def test_ignore_eos_writes_on(ngram: NGram, tokenizer: Tokenizer) -> None:
    end = {str(tokenizer.document_end): 50.0}
    sample = generate(ngram, tokenizer, ["a"], SamplingConfig(temperature=0, ignore_eos=True, max_tokens=9, logit_bias=end))  # fmt: skip  # noqa: E501
    assert len(sample[0].ids) == 9
    assert tokenizer.document_end not in sample[0].ids


def test_stop_tokens_and_shown_stop_texts(ngram: NGram, tokenizer: Tokenizer) -> None:
    plain = generate(ngram, tokenizer, ["The"], SamplingConfig(temperature=0, max_tokens=30))[0]
    token = plain.ids[5]
    first = plain.ids.index(token)
    stopped = generate(ngram, tokenizer, ["The"], SamplingConfig(temperature=0, stop_token_ids=(token,)))[0]
    assert stopped.ids == plain.ids[:first]
    assert stopped.finish_reason == "stop"
    piece = plain.text[10:13]
    place = plain.text.index(piece)
    config = SamplingConfig(temperature=0, stop=(piece,), include_stop_str_in_output=True)
    assert generate(ngram, tokenizer, ["The"], config)[0].text == plain.text[: place + len(piece)]
    assert "".join(event.text for event in stream(ngram, tokenizer, "The", config)) == plain.text[: place + len(piece)]


def test_the_prompts_own_probabilities(ngram: NGram, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(temperature=0, max_tokens=1, prompt_logprobs=2, echo=True)
    text = "The people of the United States"
    sample = generate(ngram, tokenizer, [text], config)[0]
    ids = [tokenizer.document_begin, *tokenizer.encode(text)]
    assert sample.prompt_logprobs is not None
    assert [one.token for one in sample.prompt_logprobs] == ids
    assert sample.prompt_logprobs[0].logprob is None
    log_probs, _ = ngram.read(torch.tensor([ids]), ngram.start(1))
    for place, one in enumerate(sample.prompt_logprobs[1:]):
        assert one.logprob == pytest.approx(log_probs[0, place, one.token].item(), abs=1e-5)
        assert len(one.top) == 2
    assert sample.text.startswith(text)
    assert "".join(event.text for event in stream(ngram, tokenizer, text, config)) == sample.text


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_mirostat_holds_its_surprise(tokenizer: Tokenizer, tau: float) -> None:
    config = SamplingConfig(temperature=1.0, mirostat=2, mirostat_tau=tau, ignore_eos=True)
    sampler = sampler_of(tokenizer, config, seed=3)
    surprises = []
    for step in range(600):
        (choice,) = choose([sampler], log_probs_of(tokenizer, step))
        sampler.accept(choice.token)
        surprises.append(sampler._surprise)  # under the truncated distribution: what the rule holds
    assert np.mean(surprises[100:]) == pytest.approx(tau, abs=0.15)


def test_xtc_is_seeded_and_changes_only_likely_choices(ngram: NGram, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(**PLAIN, xtc_probability=1.0, xtc_threshold=0.05, seed=2, max_tokens=40)
    first, again = (generate(ngram, tokenizer, ["The"], config)[0].ids for _ in range(2))
    assert first == again
    plain = generate(ngram, tokenizer, ["The"], SamplingConfig(**PLAIN, seed=2, max_tokens=40))[0].ids
    assert first != plain


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mirostat_tau": 3.0}, "mirostat_tau"),
        ({"xtc_threshold": 0.2}, "xtc_threshold"),
        ({"dry_base": 2.0}, "dry_base"),
        ({"mirostat": 2, "top_p": 0.9}, "top_p"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"temperature": 0, "typical_p": 0.9}, "typical_p"),
        ({"min_tokens": 300}, "min_tokens"),
        ({"logit_bias": {"a": 1.0}}, "bias"),
        ({"logprobs": 1000}, "logprobs"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SamplingConfig(**changes)


def test_tokens_that_do_not_exist_are_refused(ngram: NGram, tokenizer: Tokenizer) -> None:
    for name in ("stop_token_ids", "allowed_token_ids"):
        with pytest.raises(UsageError, match="Tokens go from 0"):
            generate(ngram, tokenizer, ["a"], SamplingConfig(**{name: (10**6,)}))


def test_nothing_left_to_say_is_a_failure(ngram: NGram, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode("a")[0]
    config = SamplingConfig(allowed_token_ids=(token,), bad_words=("a",), ignore_eos=True)
    with pytest.raises(Failure, match="No token may come next"):
        generate(ngram, tokenizer, ["b"], config)
