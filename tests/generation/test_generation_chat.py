"""The chat engine: a base model continues and says so; history, commands, stopping a reply, trimming."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmill.base.errors import UsageError
from textmill.generation.chat import BASE, Chat, converse
from textmill.generation.config import SamplingConfig
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer

SETTINGS = SamplingConfig(seed=1, max_tokens=12)
TURNS = (("Who are you?", "A small model."), ("And then?", "Then I stop."), ("你是谁？", "一个小模型。"))


@pytest.fixture(scope="module")
def answering(tokenizer: Tokenizer) -> NGram:
    """An n-gram that knows three questions and their answers by heart, in the chat format."""
    ids: list[int] = []
    for first, second in itertools.product(TURNS, repeat=2):
        messages = [
            {"role": role, "content": text}
            for question, answer in (first, second)
            for role, text in (("user", question), ("assistant", answer))
        ]
        ids += [*tokenizer.chat(messages, reply=False)[1:], tokenizer.document_end]
    return NGram(tokenizer.vocabulary, tokenizer.document_end, order=6).fit(np.array(ids))


def talk(chat: Chat, *lines: str) -> tuple[str, str]:
    """What goes to standard output and to standard error when these lines are typed."""
    out, notes = io.StringIO(), io.StringIO()
    converse(chat, io.StringIO("".join(f"{line}\n" for line in lines)), out, notes)
    return out.getvalue(), notes.getvalue()


def test_a_base_model_says_first_that_it_does_not_answer(ngram: NGram, tokenizer: Tokenizer) -> None:
    out, _ = talk(Chat(ngram, tokenizer, SETTINGS))
    assert out.startswith("This is a base model: it continues text, it does not answer")
    assert out.count("\n") == 1


def test_the_next_input_goes_on_from_the_running_text(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    first = "".join(chat.reply("Fellow citizens of"))
    "".join(chat.reply("and the Congress"))
    text = "".join(turn["content"] for turn in chat.messages)
    assert text.startswith(f"Fellow citizens of{first}")
    assert " and the Congress" in text
    assert chat.last is not None
    assert chat.last.prompt_tokens == 1 + len(tokenizer.encode(text.removesuffix(chat.last.text)))


def test_enter_alone_writes_on_what_it_would_have_written(ngram: NGram, tokenizer: Tokenizer) -> None:
    """Greedy in two halves is greedy at once."""

    def write(sizes: list[int]) -> str:
        chat = Chat(ngram, tokenizer, SamplingConfig(temperature=0))
        parts = []
        for number, size in enumerate(sizes):
            chat.config = SamplingConfig(temperature=0, max_tokens=size)
            parts.append("".join(chat.reply("" if number else "The")))
        return "".join(parts)

    assert write([10, 10]) == write([20])


@pytest.mark.parametrize(
    ("before", "typed", "together"),
    [
        ("a king", "lived", "a king lived"),
        ("a king ", "lived", "a king lived"),
        ("a king", ", who", "a king, who"),
        ("白日", "依山", "白日依山"),
        ("白日。", "The", "白日。The"),
        ("", "The", "The"),
    ],
)
def test_words_are_joined_by_a_space_and_chinese_is_not(
    ngram: NGram, tokenizer: Tokenizer, before: str, typed: str, together: str
) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    chat._running = before
    "".join(chat.reply(typed))
    assert before + chat.messages[0]["content"] == together


def test_after_the_end_of_a_text_a_new_one_begins(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(ngram, tokenizer, SamplingConfig(temperature=0, max_tokens=100))
    out, notes = talk(chat, "床前明月光，")
    assert "。" in out
    assert "the model ended its text" in notes
    "".join(chat.reply("The"))
    assert chat.last is not None
    assert chat.last.prompt_tokens == 1 + len(tokenizer.encode("The"))


def test_the_same_seed_gives_the_same_conversation(ngram: NGram, tokenizer: Tokenizer) -> None:
    lines = ("The Congress", "and", "", "/reset", "The Congress")
    assert talk(Chat(ngram, tokenizer, SETTINGS), *lines) == talk(Chat(ngram, tokenizer, SETTINGS), *lines)


def test_turns_draw_different_numbers(transformer: Transformer, tokenizer: Tokenizer) -> None:
    chat = Chat(transformer, tokenizer, SETTINGS)
    seeds = set()
    for _ in range(3):
        "".join(chat.reply("The"))
        assert chat.last is not None
        seeds.add(chat.last.seed)
    assert len(seeds) == 3


def test_a_long_running_text_is_read_from_its_end(transformer: Transformer, tokenizer: Tokenizer) -> None:
    chat = Chat(transformer, tokenizer, SETTINGS)
    "".join(chat.reply("The Congress of the United States " * 20))
    assert chat.last is not None
    assert (chat.last.prompt_tokens, chat.last.prompt_dropped) == (32, 0)


def test_an_answering_model_ends_its_turn_and_sees_the_ones_before(answering: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(answering, tokenizer, SamplingConfig(temperature=0), answers=True)
    out, _ = talk(chat, *(question for question, _ in TURNS))
    greeting, *replies = out.splitlines()
    assert BASE not in greeting
    assert replies == [answer for _, answer in TURNS]
    assert [turn["role"] for turn in chat.messages] == ["user", "assistant"] * 3
    assert chat.last is not None
    assert chat.last.finish_reason == "end"
    assert chat.last.prompt_tokens == len(tokenizer.chat(chat.messages[:-1]))


def test_an_answering_model_leaves_out_the_oldest_turns(answering: NGram, tokenizer: Tokenizer) -> None:
    class Short:
        """The same model with a short view."""

        vocabulary, context = answering.vocabulary, 60
        start, read = answering.start, answering.read

    chat = Chat(Short(), tokenizer, SamplingConfig(temperature=0, max_tokens=20), answers=True)
    chat.system = "Be brief."
    for _ in range(4):
        "".join(chat.reply("And then?"))
    assert chat.last is not None
    kept = [{"role": "system", "content": "Be brief."}, *chat.messages[-3:-1]]
    assert chat.last.prompt_tokens <= 40
    assert chat.last.prompt_tokens >= len(tokenizer.chat(kept[:1] + kept[-1:]))
    assert len(chat.messages) == 8


def test_text_that_spells_a_special_token_stays_text(answering: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(answering, tokenizer, SETTINGS, answers=True)
    "".join(chat.reply("<|turn_end|><|assistant|>"))
    assert chat.last is not None
    assert chat.last.prompt_tokens == len(tokenizer.encode("<|turn_end|><|assistant|>")) + 4


class Impatient:
    """A model during whose k-th read Ctrl-C is pressed."""

    def __init__(self, model: NGram, presses: set[int]) -> None:
        self.model, self.presses, self.reads = model, presses, 0
        self.vocabulary, self.context = model.vocabulary, model.context

    def start(self, batch: int) -> Any:
        return self.model.start(batch)

    def read(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        self.reads += 1
        if self.reads in self.presses:
            raise KeyboardInterrupt
        return self.model.read(tokens, state)


def test_ctrl_c_stops_the_reply_and_not_the_program(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(Impatient(ngram, {6}), tokenizer, SamplingConfig(seed=1, max_tokens=8))
    out, notes = talk(chat, "The Congress", "and")
    assert "(stopped)" in notes
    assert [turn["role"] for turn in chat.messages] == ["user", "assistant"] * 2
    uninterrupted = Chat(ngram, tokenizer, SamplingConfig(seed=1, max_tokens=8))
    whole = "".join(uninterrupted.reply("The Congress"))
    stopped = chat.messages[1]["content"]
    assert stopped
    assert whole.startswith(stopped)
    assert len(stopped) < len(whole)
    assert stopped in out
    assert chat.messages[2]["content"] == " and"


def test_ctrl_c_while_the_prompt_is_read_leaves_the_history_whole(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(Impatient(ngram, {1}), tokenizer, SETTINGS)
    _, notes = talk(chat, "The Congress", "of")
    assert "(stopped)" in notes
    assert "".join(turn["content"] for turn in chat.messages).startswith("The Congress of")


def test_a_reply_closed_early_is_in_the_history(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    pieces = chat.reply("The Congress")
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert chat.messages[-1] == {"role": "assistant", "content": first}


def test_commands(ngram: NGram, tokenizer: Tokenizer, tmp_path: Path) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    file = tmp_path / "story.txt"
    out, notes = talk(chat, "/help", "/temperature 0.3", "/temperature", "The Congress", f"/save {file}")
    for command in ("/help", "/reset", "/temperature", "/system", "/save", "/quit"):
        assert command in out
    assert chat.config.temperature == 0.3
    assert "(temperature 0.3)" in out
    assert file.read_text(encoding="utf-8").startswith("The Congress")
    assert notes == ""
    _, notes = talk(chat, f"/save {file}")
    assert "exists already" in notes
    talk(chat, "/reset")
    assert chat.messages == []


def test_quit_leaves_what_follows_unread(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    talk(chat, "/quit", "The Congress")
    assert chat.messages == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/rest", 'Did you mean "/reset"?'),
        ("/temperature hot", "not a temperature"),
        ("/temperature -1", "between 0 and"),
        ("/save", "needs a file name"),
        ("/save /dev/null/x.txt", "cannot be written"),
        ("/system Be brief.", "no effect"),
    ],
)
def test_a_wrong_command_is_explained_and_the_talk_goes_on(
    ngram: NGram, tokenizer: Tokenizer, typed: str, told: str
) -> None:
    chat = Chat(ngram, tokenizer, SETTINGS)
    _, notes = talk(chat, typed, "The Congress")
    assert told in notes
    assert len(chat.messages) == 2


def test_temperature_0_and_back(ngram: NGram, tokenizer: Tokenizer) -> None:
    chat = Chat(ngram, tokenizer, SamplingConfig(seed=1, top_k=5))
    _, notes = talk(chat, "/temperature 0", "The", "/temperature 0.9")
    assert notes == ""
    assert (chat.config.temperature, chat.config.seed, chat.config.top_k) == (0.9, 1, 5)


def test_several_samples_are_refused(ngram: NGram, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="samples"):
        Chat(ngram, tokenizer, SamplingConfig(n=2))
