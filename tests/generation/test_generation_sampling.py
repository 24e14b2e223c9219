"""Generation on the protocol alone: same seed, same text; rows apart; ends, stops and lengths kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.generation import sampling as module
from textmill.generation.config import SamplingConfig
from textmill.generation.sampling import generate, stream
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import TURN_END, Tokenizer

PROMPT = "Fellow citizens of the"


@pytest.fixture(params=["ngram", "transformer"])
def model(request: pytest.FixtureRequest) -> NGram | Transformer:
    return request.getfixturevalue(request.param)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: Any, tokenizer: Tokenizer) -> None:
    def write(seed: int) -> str:
        return generate(model, tokenizer, [PROMPT], SamplingConfig(seed=seed, max_tokens=30))[0].text

    assert write(7) == write(7)
    assert write(7) != write(8)


def test_the_reported_seed_gives_the_text_again(ngram: NGram, tokenizer: Tokenizer) -> None:
    first = generate(ngram, tokenizer, [PROMPT], SamplingConfig(max_tokens=20))[0]
    again = generate(ngram, tokenizer, [PROMPT], SamplingConfig(max_tokens=20, seed=first.seed))[0]
    assert again.ids == first.ids


def test_a_row_is_the_same_whatever_n_is(model: Any, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(seed=3, max_tokens=25)
    many = generate(model, tokenizer, [PROMPT], SamplingConfig(seed=3, max_tokens=25, n=5))
    few = generate(model, tokenizer, [PROMPT], SamplingConfig(seed=3, max_tokens=25, n=2))
    assert [sample.ids for sample in many[:2]] == [sample.ids for sample in few]
    assert generate(model, tokenizer, [PROMPT], config)[0].ids == many[0].ids
    assert len({sample.ids for sample in many}) == 5
    assert [sample.row for sample in many] == [0, 1, 2, 3, 4]


def test_more_samples_than_fit_at_once_are_made_in_turns(
    ngram: NGram, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SamplingConfig(seed=3, max_tokens=10, n=5)
    whole = generate(ngram, tokenizer, [PROMPT], config)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    assert [s.ids for s in generate(ngram, tokenizer, [PROMPT], config)] == [s.ids for s in whole]


def test_prompts_of_different_lengths_do_not_touch_each_other(model: Any, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(seed=5, max_tokens=15, n=2)
    prompts = ["", PROMPT, "白日依山尽", "The"]
    together = generate(model, tokenizer, prompts, config)
    alone = [sample for prompt in prompts for sample in generate(model, tokenizer, [prompt], config)]
    assert [sample.ids for sample in together] == [sample.ids for sample in alone]


def test_greedy_is_the_chain_of_likeliest_tokens(model: Any, tokenizer: Tokenizer) -> None:
    """The state (a key-value cache, a history) gives what reading everything afresh at each step gives."""
    sample = generate(model, tokenizer, [PROMPT], SamplingConfig(temperature=0, max_tokens=12))[0]
    ids = [tokenizer.document_end, *tokenizer.encode(PROMPT)]
    never = [i for i in tokenizer.special.values() if i != tokenizer.document_end]
    for token, logprob in zip(sample.ids, sample.logprobs, strict=True):
        log_probs, _ = model.read(torch.tensor([ids]), model.start(1))
        last = log_probs[0, -1].clone()
        assert last[token].item() == pytest.approx(logprob, abs=1e-4)
        last[never] = -torch.inf
        assert token == int(last.argmax())
        ids.append(token)


def test_a_long_prompt_read_in_pieces_reads_the_same(
    model: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [tokenizer.document_end, *tokenizer.encode("The Congress of the United States " * 10)][:31]
    config = SamplingConfig(seed=1, max_tokens=10)
    whole = generate(model, tokenizer, [prompt], config)[0]
    monkeypatch.setattr(module, "READ_ELEMENTS", 1)  # the smallest piece: 16 tokens
    assert generate(model, tokenizer, [prompt], config)[0].ids == whole.ids


def test_draws_follow_the_distribution(ngram: NGram, tokenizer: Tokenizer) -> None:
    """800 first tokens after "of" against their probabilities (chi-square over the likeliest 8)."""
    config = SamplingConfig(temperature=1, min_p=0, max_tokens=1, n=800, seed=0)
    counts: dict[int, int] = {}
    for sample in generate(ngram, tokenizer, ["of"], config):
        for token in sample.ids:
            counts[token] = counts.get(token, 0) + 1
    ids = [tokenizer.document_end, *tokenizer.encode("of")]
    log_probs, _ = ngram.read(torch.tensor([ids]), ngram.start(1))
    allowed = log_probs[0, -1].exp()
    allowed[[i for i in tokenizer.special.values() if i != tokenizer.document_end]] = 0
    top = (allowed / allowed.sum()).topk(8)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    chi_square = sum((counts.get(i, 0) - 800 * p) ** 2 / (800 * p) for i, p in pairs)
    assert chi_square < 30  # 8 degrees of freedom: above it once in 5,000 seeds


def test_max_tokens_is_kept(model: Any, tokenizer: Tokenizer) -> None:
    sample = generate(model, tokenizer, [PROMPT], SamplingConfig(seed=0, max_tokens=5))[0]
    assert len(sample.ids) == len(sample.logprobs) == 5
    assert sample.finish_reason == "length"


def test_a_model_may_write_past_its_context(transformer: Transformer, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(seed=0, max_tokens=100)
    assert len(generate(transformer, tokenizer, [PROMPT], config)[0].ids) == 100


def test_a_verse_ends_at_the_document_end(ngram: NGram, tokenizer: Tokenizer, documents: list[str]) -> None:
    greedy = SamplingConfig(temperature=0, max_tokens=300)
    sample = generate(ngram, tokenizer, ["床前明月光，"], greedy)[0]
    assert sample.finish_reason == "end"
    assert sample.text.endswith("。")
    assert any(sample.text[-6:] in verse for verse in documents)
    assert tokenizer.document_end not in sample.ids


def test_an_empty_prompt_begins_a_document(ngram: NGram, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(seed=2, max_tokens=10)
    from_text = generate(ngram, tokenizer, [""], config)[0]
    from_nothing = generate(ngram, tokenizer, [[]], config)[0]
    from_token = generate(ngram, tokenizer, [[tokenizer.document_end]], config)[0]
    assert from_text.ids == from_nothing.ids == from_token.ids
    assert from_text.prompt_tokens == 1


def test_no_prompts_give_no_samples(ngram: NGram, tokenizer: Tokenizer) -> None:
    assert generate(ngram, tokenizer, [], SamplingConfig()) == []


def test_of_a_prompt_beyond_the_context_the_end_is_read(transformer: Transformer, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The Congress of the United States " * 10)
    config = SamplingConfig(seed=1, max_tokens=8)
    long = generate(transformer, tokenizer, [ids], config)[0]
    short = generate(transformer, tokenizer, [ids[-32:]], config)[0]
    assert (long.prompt_tokens, long.prompt_dropped) == (32, len(ids) - 32)
    assert short.prompt_dropped == 0
    assert long.ids == short.ids


def test_special_tokens_are_never_written(tokenizer: Tokenizer, ngram: NGram) -> None:
    """Even by a model that gives them nearly all of the probability, and has more ids than the tokenizer."""

    class Loud:
        """The n-gram's predictions, drowned by special tokens and by ids that the tokenizer does not have."""

        vocabulary, context = ngram.vocabulary + 64, None

        def start(self, batch: int) -> Any:
            return ngram.start(batch)

        def read(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            log_probs, state = ngram.read(tokens, state)
            log_probs = torch.nn.functional.pad(log_probs, (0, 64), value=5.0)
            quiet = [i for i in tokenizer.special.values() if i != tokenizer.document_end]
            log_probs[..., quiet] = 9.0
            return log_probs.log_softmax(-1), state

    samples = generate(Loud(), tokenizer, [PROMPT], SamplingConfig(seed=0, max_tokens=40, n=3, min_p=0.0))
    drawn = {token for sample in samples for token in sample.ids}
    assert drawn
    assert max(drawn) < tokenizer.vocabulary
    assert not drawn & set(tokenizer.special.values())
    turn_end = tokenizer.special[TURN_END]
    ended = generate(Loud(), tokenizer, [PROMPT], SamplingConfig(seed=0, max_tokens=40), end_tokens=[turn_end])
    assert ended[0].finish_reason == "end"


def test_a_penalty_makes_repetition_rarer(ngram: NGram, tokenizer: Tokenizer) -> None:
    def distinct(penalty: float) -> int:
        config = SamplingConfig(temperature=0, repetition_penalty=penalty, max_tokens=60)
        return len(set(generate(ngram, tokenizer, [PROMPT], config)[0].ids))

    assert distinct(1.5) > distinct(1.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), start=st.integers(0, 60), length=st.integers(1, 12))
def test_stop_texts_that_span_tokens_never_leak(
    ngram: NGram, tokenizer: Tokenizer, seed: int, start: int, length: int
) -> None:
    free = generate(ngram, tokenizer, [PROMPT], SamplingConfig(seed=seed, max_tokens=40))[0]
    stop = free.text[start : start + length]
    if not stop:
        return
    config = SamplingConfig(seed=seed, max_tokens=40, stop=(stop,))
    stopped = generate(ngram, tokenizer, [PROMPT], config)[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text[: free.text.index(stop)]
    shown = ""
    for event in stream(ngram, tokenizer, PROMPT, config):
        shown += event.text
        assert stopped.text.startswith(shown)
    assert shown == stopped.text


@pytest.mark.parametrize("prompt", ["白日", "床前", "学而时", "处处", ""])
@pytest.mark.parametrize("max_tokens", [1, 2, 7, 60])
def test_streamed_chinese_is_whole_characters_and_the_same_text(
    ngram: NGram, tokenizer: Tokenizer, prompt: str, max_tokens: int
) -> None:
    config = SamplingConfig(seed=4, max_tokens=max_tokens, temperature=0.5, min_p=0.2)
    whole = generate(ngram, tokenizer, [prompt], config)[0]
    events = list(stream(ngram, tokenizer, prompt, config))
    assert "".join(event.text for event in events) == whole.text
    assert "\ufffd" not in whole.text
    assert [event.token for event in events[:-1]][: len(whole.ids)] == list(whole.ids)
    last = events[-1].generation
    assert last is not None
    assert (last.text, last.ids, last.finish_reason) == (whole.text, whole.ids, whole.finish_reason)
    assert all(event.generation is None for event in events[:-1])


def test_some_of_that_chinese_does_come_in_halves(tokenizer: Tokenizer) -> None:
    """Or the test above would show nothing."""
    pieces = [tokenizer.decode_bytes([token]) for token in tokenizer.encode("白日依山尽，床前明月光")]
    assert any("\ufffd" in piece.decode("utf-8", "replace") for piece in pieces)


def test_gradients_stay_on_for_who_reads_a_stream(transformer: Transformer, tokenizer: Tokenizer) -> None:
    for _ in stream(transformer, tokenizer, PROMPT, SamplingConfig(seed=0, max_tokens=3)):
        assert torch.is_grad_enabled()


def test_a_model_in_training_goes_on_training(transformer: Transformer, tokenizer: Tokenizer) -> None:
    transformer.train()
    try:
        for _ in stream(transformer, tokenizer, PROMPT, SamplingConfig(seed=0, max_tokens=3)):
            assert not transformer.training
        assert transformer.training
    finally:
        transformer.eval()


def test_figures_are_of_this_sample(ngram: NGram, tokenizer: Tokenizer) -> None:
    sample = generate(ngram, tokenizer, [PROMPT], SamplingConfig(seed=1, max_tokens=20))[0]
    assert sample.prompt_tokens == 1 + len(tokenizer.encode(PROMPT))
    assert sample.tokens_per_second == pytest.approx(len(sample.ids) / sample.seconds)
    assert all(logprob <= 0 for logprob in sample.logprobs)


def test_several_samples_cannot_be_streamed(ngram: NGram, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="streamed"):
        stream(ngram, tokenizer, PROMPT, SamplingConfig(n=2))


def test_tokens_that_do_not_exist_are_refused(ngram: NGram, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="token -1"):
        generate(ngram, tokenizer, [[-1]], SamplingConfig())
    with pytest.raises(UsageError, match="list of prompts"):
        generate(ngram, tokenizer, PROMPT, SamplingConfig())


def test_a_diverged_model_is_said_to_be_one(transformer: Transformer, tokenizer: Tokenizer) -> None:
    weight = transformer.head.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        with pytest.raises(Failure, match="cannot say what comes next"):
            generate(transformer, tokenizer, [PROMPT], SamplingConfig(max_tokens=3))
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_a_tokenizer_of_another_model_is_refused(tokenizer: Tokenizer) -> None:
    small = NGram(tokenizer.vocabulary - 64, tokenizer.document_end, order=1)
    with pytest.raises(Failure, match="do not belong together"):
        generate(small, tokenizer, [PROMPT], SamplingConfig())
