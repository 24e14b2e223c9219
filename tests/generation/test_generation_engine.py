"""The engine: the same text whoever else is served, fair turns, cancelling, faults, and an orderly end."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmill.base.errors import Failure, Interrupted, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.engine import Busy, Engine, EngineConfig
from textmill.generation.engine.alone import Writer
from textmill.generation.engine.request import Event, arrivals
from textmill.generation.engine.states import ENTRY_BYTES, PIECE, PrefixCache, state_bytes
from textmill.generation.loading import OpenModel
from textmill.generation.native import why_not
from textmill.generation.sampling import generate
from textmill.models.config import TransformerConfig
from textmill.models.hmm import HiddenMarkov, HiddenMarkovConfig
from textmill.models.ngram import NGram
from textmill.models.presets import arrange
from textmill.models.recurrent import Lstm, MinGru, MinGruConfig, RecurrentConfig
from textmill.models.recurrent.config import StateSpaceConfig
from textmill.models.state_space import Mamba
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer

GREEDY = SamplingConfig(temperature=0, max_tokens=24)


def randomized(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module", params=["ngram", "hmm", "lstm", "mingru", "mamba", "transformer", "gpt2"])
def model(request: pytest.FixtureRequest, ngram: NGram, tokenizer: Tokenizer) -> Any:
    """A model of each kind of state."""
    size = tokenizer.vocabulary
    if request.param == "hmm":
        import numpy as np

        text = np.random.default_rng(0).integers(16, size, 4000)
        return HiddenMarkov(HiddenMarkovConfig(vocabulary=size, states=8, document_end=tokenizer.document_end)).fit(
            text
        )
    return {
        "ngram": lambda: ngram,
        "lstm": lambda: randomized(Lstm(RecurrentConfig(vocabulary=size, layers=1, width=24))),
        "mingru": lambda: randomized(MinGru(MinGruConfig(vocabulary=size, layers=2, width=32))),
        "mamba": lambda: randomized(Mamba(StateSpaceConfig(vocabulary=size, layers=1, width=32))),
        "transformer": lambda: randomized(
            Transformer(TransformerConfig(vocabulary=size, context=160, layers=2, width=32, heads=2))
        ),
        "gpt2": lambda: randomized(
            Transformer(arrange("gpt2", vocabulary=size, context=210, layers=2, width=32, heads=2))
        ),
    }[request.param]()


def prompts_of(tokenizer: Tokenizer, documents: list[str], count: int) -> list[list[int]]:
    text = tokenizer.encode(documents[0])
    draw = random.Random(3)
    found = []
    for _ in range(count):
        start, length = draw.randrange(2000), draw.choice([1, 5, 63, 64, 65, 130, 200])
        found.append([tokenizer.document_begin, *text[start : start + length]])
    return found


def test_a_sample_is_the_same_alone_in_company_in_parts_and_from_the_cache(
    model: Any, tokenizer: Tokenizer, documents: list[str]
) -> None:
    prompts = prompts_of(tokenizer, documents, 7)
    drawn = SamplingConfig(temperature=1.0, seed=11, max_tokens=20, n=2, top_p=0.95, logprobs=2)
    alone: list[list[Any]] = []
    for prompt in prompts:
        engine = Engine(model, tokenizer, EngineConfig(prefix_sharing=False))
        alone.append([engine.submit(prompt, config).results() for config in (GREEDY, drawn)])
        engine.close()
    draw = random.Random(5)
    for prefill in (64, 1000):
        engine = Engine(model, tokenizer, EngineConfig(prefill_tokens=prefill, max_running=9))
        asked = [(i, j) for i in range(len(prompts)) for j in range(2)] * 2  # each twice: the second finds its prefix
        draw.shuffle(asked)
        tickets = []
        for i, j in asked:
            tickets.append((i, j, engine.submit(prompts[i], (GREEDY, drawn)[j], owner=f"{i % 3}")))
            if draw.random() < 0.3:
                other = engine.submit(prompts[0], drawn)
                other.cancel()
            time.sleep(draw.random() * 0.004)
        for i, j, ticket in tickets:
            for here, there in zip(ticket.results(), alone[i][j], strict=True):
                assert here.ids == there.ids
                assert here.logprobs == there.logprobs  # to the last bit
                assert here.top_logprobs == there.top_logprobs
        assert engine.stats().prefix_hits > 0
        engine.close()


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_little_memory_puts_samples_off_and_changes_nothing(
    tokenizer: Tokenizer, documents: list[str], weights: Any
) -> None:
    model = randomized(
        Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=256, layers=2, width=32, heads=2))
    )
    if why_not(model):
        pytest.skip(f"!! NO COMPILER: pages are not tested: {why_not(model)}")
    prompts = prompts_of(tokenizer, documents, 8)
    config = SamplingConfig(temperature=1.0, seed=2, max_tokens=120, n=2, ignore_eos=True)
    roomy = Engine(model, tokenizer, EngineConfig(weights=weights))
    expected = [roomy.submit(prompt, config).results() for prompt in prompts]
    assert roomy.stats().preemptions == 0
    roomy.close()
    tight = Engine(
        model, tokenizer, EngineConfig(weights=weights, cache_bytes=1)
    )  # one whole context and a little more
    tickets = [tight.submit(prompt, config) for prompt in prompts]
    for ticket, made in zip(tickets, expected, strict=True):
        assert [one.ids for one in ticket.results()] == [one.ids for one in made]
    stats = tight.stats()
    assert stats.preemptions > 0
    assert stats.running == 0
    assert stats.cache_bytes == 0  # every page came back
    tight.close()


def test_guesses_change_nothing_and_some_are_right(tokenizer: Tokenizer, documents: list[str]) -> None:
    """The same text, to the last bit of its log-probabilities, drawn or not, with and without guessing."""
    model = randomized(
        Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=512, layers=2, width=32, heads=2))
    )
    if why_not(model):
        pytest.skip(f"!! NO COMPILER: guesses are not tested: {why_not(model)}")
    token = {str(tokenizer.encode(" the")[0]): 3.0}
    configs = [
        SamplingConfig(temperature=0, max_tokens=150, ignore_eos=True, repetition_penalty=0.8),
        SamplingConfig(temperature=1.0, seed=1, top_k=3, max_tokens=150, ignore_eos=True, logprobs=2, n=2),
        SamplingConfig(temperature=0.3, seed=2, max_tokens=90, logit_bias=token, frequency_penalty=-1.0, stop=("zzz",)),
        SamplingConfig(temperature=0, max_tokens=40, allowed_token_ids=(300, 301), ignore_eos=True),
    ]
    prompts = prompts_of(tokenizer, documents, 4)
    made = []
    for drafts in (0, 1, 6):
        engine = Engine(model, tokenizer, EngineConfig(draft_tokens=drafts))
        tickets = [engine.submit(prompt, config) for prompt in prompts for config in configs]
        made.append([[(one.ids, one.logprobs, one.finish_reason) for one in ticket.results()] for ticket in tickets])
        stats = engine.stats()
        assert (stats.guessed > 0) == (drafts > 0)
        assert (stats.guessed_right > 50) == (drafts > 0)
        assert stats.cache_bytes == 0
        engine.close()
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("kind", ["n-gram", "itself", "other"])
def test_a_draft_model_changes_nothing_and_is_often_right(
    kind: str, tokenizer: Tokenizer, documents: list[str]
) -> None:
    """An n-gram of the model's own text guesses some of it, the model itself nearly all of what is not drawn."""
    model = randomized(
        Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=300, layers=2, width=32, heads=2))
    )
    if why_not(model):
        pytest.skip(f"!! NO COMPILER: guesses are not tested: {why_not(model)}")
    configs = [
        SamplingConfig(temperature=0, max_tokens=120, ignore_eos=True),
        SamplingConfig(temperature=0.7, seed=1, max_tokens=80, logprobs=2, n=2),
        SamplingConfig(temperature=0, max_tokens=400, ignore_eos=True),  # past the context
    ]
    prompts = prompts_of(tokenizer, documents, 2)
    end = tokenizer.document_end

    def run(draft: Any) -> tuple[list[Any], Any]:
        engine = Engine(model, tokenizer, EngineConfig(draft_tokens=4), draft=draft)
        tickets = [engine.submit(prompt, config) for prompt in prompts for config in configs]
        made = [[(one.ids, one.logprobs, one.finish_reason) for one in ticket.results()] for ticket in tickets]
        stats = engine.stats()
        assert stats.cache_bytes == 0
        assert engine._draft_runner is None or engine._draft_runner.cache_bytes == 0
        engine.close()
        return made, stats

    plain, before = run(None)
    if kind == "n-gram":
        text = [token for made in plain for ids, _, _ in made for token in (*ids, end)]
        draft: Any = NGram(tokenizer.vocabulary, end, order=4).fit(np.array(text))
    elif kind == "itself":
        draft = model
    else:
        torch.manual_seed(5)
        draft = randomized(Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=64, layers=1, width=16, heads=1)))  # fmt: skip  # noqa: E501
    made, stats = run(draft)
    assert made == plain
    if kind != "other":
        assert stats.guessed_right > before.guessed_right + 50
    with pytest.raises(UsageError, match="knows 99 tokens"):
        Engine(model, tokenizer, draft=NGram(99, 0, order=2).fit(np.array([1, 2, 3, 0])))


def test_texts_beyond_the_context_go_on_as_the_model_itself_does(tokenizer: Tokenizer) -> None:
    for preset in ("modern", "gpt2"):
        model = randomized(Transformer(arrange(preset, vocabulary=tokenizer.vocabulary, context=70, layers=2, width=32, heads=2)))  # fmt: skip  # noqa: E501
        config = SamplingConfig(temperature=0, max_tokens=250, ignore_eos=True)
        texts = []
        for compiled in (True, False):
            engine = Engine(model, tokenizer, EngineConfig(compiled=compiled))
            texts.append(engine.submit(list(range(40, 100)), config).results()[0].ids)
            assert engine.stats().cache_bytes == 0 or not compiled
            engine.close()
        assert texts[0] == texts[1]


def test_weights_that_a_model_cannot_have_are_refused(ngram: NGram, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="int4 weights"):
        Engine(ngram, tokenizer, EngineConfig(weights="int4"))


def test_it_writes_what_generate_writes(ngram: NGram, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(seed=4, max_tokens=40, n=3, stop=("the",), logprobs=1, prompt_logprobs=1, echo=True)
    engine = Engine(ngram, tokenizer)
    ours = engine.submit("The people of", config).results()
    theirs = generate(ngram, tokenizer, ["The people of"], config)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.text, mine.ids, mine.finish_reason) == (other.text, other.ids, other.finish_reason)
        assert mine.prompt_logprobs == other.prompt_logprobs
    engine.close()


def test_a_model_of_any_family_is_written_with(model: Any, tokenizer: Tokenizer) -> None:
    # One that is no torch module (n-gram, HMM) has no tensors to count and is read as it is.
    writer = Writer(OpenModel(Path("runs/one"), model, tokenizer, chat=False))
    config = SamplingConfig(max_tokens=6, temperature=0)
    text = writer.generate("The people", config)[0].text
    assert "".join(event.text for event in writer.stream("The people", config)) == text
    assert writer.note == ""


def test_events_joined_are_the_text(ngram: NGram, tokenizer: Tokenizer) -> None:
    engine = Engine(ngram, tokenizer)
    config = SamplingConfig(seed=4, max_tokens=60, n=2, prompt_logprobs=0)
    texts, made = {0: "", 1: ""}, {}
    for event in engine.submit("天下", config):
        texts[event.row] += event.text
        if event.generation is not None:
            made[event.row] = event.generation
            assert event.generation.prompt_logprobs is not None
    assert {row: one.text for row, one in made.items()} == texts
    engine.close()


def test_prompt_probabilities_are_given_whatever_the_cache_holds(ngram: NGram, tokenizer: Tokenizer, documents: list[str]) -> None:  # fmt: skip  # noqa: E501
    prompt = [tokenizer.document_begin, *tokenizer.encode(documents[0])[: 3 * PIECE]]
    engine = Engine(ngram, tokenizer)
    engine.submit(prompt, GREEDY).results()
    config = SamplingConfig(temperature=0, max_tokens=1, prompt_logprobs=0)
    found = engine.submit(prompt, config).results()[0].prompt_logprobs
    assert found is not None
    assert [one.token for one in found] == prompt
    engine.close()


def test_another_salt_finds_nothing(ngram: NGram, tokenizer: Tokenizer, documents: list[str]) -> None:
    prompt = [tokenizer.document_begin, *tokenizer.encode(documents[0])[: 3 * PIECE]]
    engine = Engine(ngram, tokenizer)
    for salt, hits in (("a", 0), ("b", 0), ("a", 3 * PIECE), ("b", 6 * PIECE)):
        engine.submit(prompt, GREEDY, salt=salt).results()
        assert engine.stats().prefix_hits == hits
    engine.close()


def test_the_cache_stays_within_its_memory_and_forgets_the_oldest() -> None:
    three = 3 * (1000 + ENTRY_BYTES)
    cache = PrefixCache(three)
    keys = [PrefixCache.keys(range(start, start + PIECE + 1), "")[0] for start in range(5)]
    for key in keys:
        cache.add(key, {"hidden": torch.zeros(250)})
    assert cache.bytes == three
    assert [cache.find([key])[0] for key in keys] == [0, 0, PIECE, PIECE, PIECE]
    cache.add(b"huge", torch.zeros(10_000))
    assert cache.bytes <= three
    assert state_bytes({"a": [torch.zeros(2), torch.zeros(3)]}) == 20


class Slow:
    """A model that takes its time, or fails when it reads a certain token; its probabilities are flat."""

    context = None

    def __init__(self, vocabulary: int, seconds: float = 0.0, poison: int = -1) -> None:
        self.vocabulary, self.seconds, self.poison, self.reads = vocabulary, seconds, poison, 0

    def start(self, batch: int) -> int:
        return 0

    def read(self, tokens: torch.Tensor, state: int) -> tuple[torch.Tensor, int]:
        self.reads += 1
        time.sleep(self.seconds)
        if (tokens == self.poison).any():
            raise RuntimeError("poisoned")
        return torch.full((*tokens.shape, self.vocabulary), -7.0), state + 1


LONG = SamplingConfig(temperature=1.0, seed=1, max_tokens=100_000, ignore_eos=True)


def test_cancelling_ends_a_sample_and_gives_what_was_written(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary), tokenizer)
    ticket = engine.submit([20], LONG)
    events = iter(ticket)
    for _ in range(5):
        next(events)
    ticket.cancel()
    last = list(events)[-1]
    assert last.generation is not None
    assert last.generation.finish_reason == "cancelled"
    assert len(last.generation.ids) >= 5
    assert engine.stats().running == 0
    engine.close()


def test_a_reader_that_sleeps_pauses_its_own_sample_alone(tokenizer: Tokenizer) -> None:
    model = Slow(tokenizer.vocabulary)
    engine = Engine(model, tokenizer, EngineConfig(buffer_events=10))
    asleep = engine.submit([20], LONG)
    assert len(engine.submit([21], SamplingConfig(temperature=0, max_tokens=200, ignore_eos=True)).results()[0].ids) == 200  # fmt: skip  # noqa: E501
    time.sleep(0.2)
    reads = model.reads
    time.sleep(0.2)
    assert model.reads == reads  # the engine rests
    assert len(asleep._events) == 10
    events = iter(asleep)
    assert len([next(events) for _ in range(50)]) == 50  # and goes on when the reader wakes
    asleep.cancel()
    engine.close()


def test_owners_take_turns(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.002), tokenizer, EngineConfig(max_running=1))
    config = SamplingConfig(temperature=0, max_tokens=3, ignore_eos=True)
    greedy = [engine.submit([20], config, owner="many") for _ in range(30)]
    modest = engine.submit([21], config, owner="one")
    modest.results()
    assert sum(ticket.done for ticket in greedy) <= 4  # not behind all thirty
    engine.close(drain=False)


def test_a_fault_ends_its_own_request_alone(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.001, poison=33), tokenizer)
    healthy = engine.submit([20], SamplingConfig(temperature=0, max_tokens=30, ignore_eos=True))
    with pytest.raises(RuntimeError, match="poisoned"):
        engine.submit([33], GREEDY).results()
    assert len(healthy.results()[0].ids) == 30
    assert engine.stats().finished["error"] == 1
    engine.close()


def test_too_many_requests_are_refused_and_wrong_ones_at_once(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.01), tokenizer, EngineConfig(max_running=1, max_waiting=2))
    with pytest.raises(UsageError, match="Tokens go from"):
        engine.submit([10**7], GREEDY)
    with pytest.raises(UsageError, match="stop_token_ids"):
        engine.submit([20], SamplingConfig(stop_token_ids=(10**7,)))
    engine.submit([20], LONG)
    time.sleep(0.1)
    for _ in range(2):
        engine.submit([20], LONG)
    with pytest.raises(Busy):
        engine.submit([20], LONG)
    engine.close(drain=False)


@pytest.mark.parametrize("drain", [True, False])
def test_closing_finishes_or_cancels_and_leaves_no_thread(tokenizer: Tokenizer, drain: bool) -> None:
    before = threading.active_count()
    engine = Engine(Slow(tokenizer.vocabulary, 0.002), tokenizer, EngineConfig(max_running=2))
    config = SamplingConfig(temperature=0, max_tokens=20, ignore_eos=True)
    tickets = [engine.submit([20 + i], config) for i in range(4)]
    time.sleep(0.02)
    engine.close(drain=drain)
    assert threading.active_count() == before
    reasons = []
    for ticket in tickets:
        try:
            reasons += [one.finish_reason for one in ticket.results()]
        except Interrupted:
            reasons.append("cancelled")
    assert set(reasons) == ({"length"} if drain else {"cancelled"})
    with pytest.raises(Failure, match="closed"):
        engine.submit([20], config)


def test_a_drain_that_takes_too_long_is_cut_off(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.01), tokenizer)
    ticket = engine.submit([20], LONG)
    began = time.monotonic()
    engine.close(drain=True, timeout=0.2)
    assert time.monotonic() - began < 2
    assert ticket.results()[0].finish_reason == "cancelled"


def test_asyncio_readers_get_every_event_and_leaving_cancels(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.0005), tokenizer)

    async def read(limit: int) -> int:
        count = 0
        config = SamplingConfig(temperature=0, max_tokens=60, ignore_eos=True)
        stream = engine.submit([20], config if limit > 60 else LONG).events()
        async for event in stream:
            count += event.token is not None
            if count == limit:
                break
        await stream.aclose()
        return count

    async def main() -> list[int]:
        return await asyncio.gather(*(read(1000) for _ in range(10)), *(read(7) for _ in range(10)))

    assert asyncio.run(main()) == [60] * 10 + [7] * 10
    for _ in range(100):
        if engine.stats().running == 0:
            break
        time.sleep(0.02)
    assert engine.stats().running == 0
    engine.close()


def test_a_thousand_open_requests_take_little_memory(tokenizer: Tokenizer) -> None:
    import resource

    engine = Engine(Slow(tokenizer.vocabulary), tokenizer, EngineConfig(max_running=1000, max_waiting=1000, buffer_events=8))  # fmt: skip  # noqa: E501
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tickets = [engine.submit([20 + i % 100], LONG) for i in range(1000)]
    deadline = time.monotonic() + 20
    while not all(ticket.full for ticket in tickets) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(ticket.full for ticket in tickets)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    engine.close(drain=False)


def test_events_of_several_requests_come_together_and_in_order(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.0005), tokenizer, EngineConfig(buffer_events=4))
    config = SamplingConfig(temperature=0, max_tokens=50, ignore_eos=True)

    async def read() -> list[list[tuple[int, Event]]]:
        found = []
        async for one in arrivals([engine.submit([20 + place], config) for place in range(5)]):
            found.append(one)
            if len(found) % 3 == 0:
                await asyncio.sleep(0.01)  # a reader that is behind: what came meanwhile comes at once
        return found

    found = asyncio.run(read())
    engine_alone = [list(engine.submit([20 + place], config)) for place in range(5)]
    engine.close()
    assert all(found)
    assert len(found) < sum(map(len, found))
    for place, expected in enumerate(engine_alone):
        got = [event for one in found for other, event in one if other == place]
        assert [(event.token, event.text) for event in got] == [(event.token, event.text) for event in expected]
        assert got[-1].generation is not None


def test_the_error_of_one_of_several_requests_comes_after_what_was_written(tokenizer: Tokenizer) -> None:
    engine = Engine(Slow(tokenizer.vocabulary, 0.002), tokenizer)
    tickets = [engine.submit([20], LONG), engine.submit([21], LONG)]

    seen: list[int] = []

    async def read() -> None:
        async for found in arrivals(tickets):
            seen.append(len(found))
            if sum(seen) > 10 and not tickets[0].done:
                tickets[0].close(Failure("An error out of the blue.", "", ""))

    with pytest.raises(Failure, match="out of the blue"):
        asyncio.run(read())
    assert sum(seen) > 10
    assert tickets[1].cancelled
    engine.close(drain=False)
