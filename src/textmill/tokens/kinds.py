"""The kinds of tokenizer, and how each is trained. Wraps the trainers of the `tokenizers` library; touches no file.

Every kind works on bytes written as GPT-2's 256 printable characters, and every byte has a token of its own. So none
has an unknown token, any text comes back exactly, and figures per byte compare between kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from textmill.base.errors import UsageError, nearest
from textmill.tokens.special import MULTIPLE, PAD, SPECIAL_TOKENS
from textmill.tokens.splitting import CHARACTER_PATTERN, SPLIT_PATTERN, WORDPIECE_WORD

KINDS: dict[str, str] = {
    "bpe": "joins the pair of tokens that stands together most often, again and again (Sennrich et al. 2016)",
    "unigram": "keeps the pieces that make the text most probable, whatever joins made them (Kudo 2018)",
    "wordpiece": "pieces as in BPE, but each word takes the longest that fits, from its start (Wu et al. 2016)",
    "word": "whole words, the most frequent; rarer ones are spelled in bytes",
    "character": "single characters, the most frequent; rarer ones are spelled in bytes",
    "byte": "the 256 bytes alone",
}

LONGEST_TOKEN = 64
"""Bytes in the longest token, so that rules and boilerplate do not become giant tokens."""
MIN_FREQUENCY = 2
"""What stands only once in the sample teaches nothing."""
CONTINUATION = "‿"
"""Marks a WordPiece token that goes on within a word. Not the usual "##", which is text in many programs."""


def check_kind(kind: str) -> None:
    """An error that names the nearest kind, where there is no such kind."""
    if kind not in KINDS:
        raise UsageError(
            f'There is no tokenizer kind "{kind}".{nearest(kind, KINDS)}', fix=f"Kinds: {', '.join(KINDS)}."
        )


def train_library(kind: str, texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    """Train a tokenizer of `kind` on `texts`.

    Args:
        kind: one of KINDS.
        texts: well-formed text, read once.
        size: token ids, special tokens and bytes included; a multiple of 64. Text too small for that gives a
            smaller vocabulary, filled up to a multiple of 64 with unused special tokens.
    """
    check_kind(kind)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    common: dict[str, Any] = {"show_progress": False, "special_tokens": list(SPECIAL_TOKENS)}
    if kind == "bpe":
        library = tokenizers.Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=MIN_FREQUENCY,
            initial_alphabet=alphabet,
            max_token_length=LONGEST_TOKEN,
            **common,
        )
    elif kind == "unigram":
        library = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=size, initial_alphabet=alphabet, **common)
    elif kind == "wordpiece":
        library = tokenizers.Tokenizer(models.WordPiece(unk_token=PAD))
        # The trainer numbers continuations in the order of a hash table, which changes ties from run to run. Given
        # beforehand, as if special, they have fixed ids, and every byte has one.
        common["special_tokens"] += [CONTINUATION + letter for letter in alphabet]
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=MIN_FREQUENCY,
            initial_alphabet=alphabet,
            continuing_subword_prefix=CONTINUATION,
            **common,
        )
    else:
        library = tokenizers.Tokenizer(models.WordLevel(unk_token=PAD))
        trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=MIN_FREQUENCY, **common)
    library.pre_tokenizer = pre_tokenizer(kind)  # type: ignore[assignment]
    if kind != "byte":
        library.train_from_iterator(texts, trainer=trainer)
    if kind == "wordpiece":
        library = _finished(kind, _wordpiece(library))
    elif kind in ("word", "character", "byte"):
        library = _finished(kind, _whole_pieces(library, alphabet, size))
    library.decoder = _decoder(kind)
    missing = -library.get_vocab_size(with_added_tokens=True) % MULTIPLE
    library.add_special_tokens([f"<|unused_{i}|>" for i in range(missing)])
    return library


def pre_tokenizer(kind: str) -> Any:
    """What cuts text into the pieces that tokens of this kind never cross."""
    pattern = CHARACTER_PATTERN if kind == "character" else SPLIT_PATTERN
    steps: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    if kind == "wordpiece":
        steps.append(pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{WORDPIECE_WORD}}}"), "isolated"))
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _decoder(kind: str) -> Any:
    if kind == "wordpiece":
        return decoders.Sequence([decoders.Replace(CONTINUATION, ""), decoders.ByteLevel()])
    return decoders.ByteLevel()


def _finished(kind: str, model: Any) -> tokenizers.Tokenizer:
    """A tokenizer of another model than was trained, with our special tokens alone."""
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizer(kind)
    library.add_special_tokens(list(SPECIAL_TOKENS))
    return library


def _wordpiece(library: tokenizers.Tokenizer) -> models.WordPiece:
    """The trained vocabulary, and words so short that none is too long."""
    return models.WordPiece(
        library.get_vocab(),
        unk_token=PAD,  # the library demands a name; no text needs it
        max_input_chars_per_word=4 * WORDPIECE_WORD,
        continuing_subword_prefix=CONTINUATION,
    )


def _whole_pieces(library: tokenizers.Tokenizer, alphabet: list[str], size: int) -> models.BPE:
    """Pieces that are tokens as they stand or else bytes: BPE without merges does that, losing nothing."""
    counted = json.loads(library.to_str())["model"]["vocab"]
    learned = sorted((token for token in counted if len(token) > 1 and token not in SPECIAL_TOKENS), key=counted.get)
    tokens = [*SPECIAL_TOKENS, *alphabet, *learned]
    return models.BPE({token: i for i, token in enumerate(tokens[:size])}, [], ignore_merges=True)
