"""Score documents with any language model, by strided windows where its context is limited. No files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from textmill.base.errors import Failure

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.models.protocol import LanguageModel
    from textmill.tokens.tokenizer import Tokenizer

SEGMENT_TOKENS = 512
"""Tokens of a segment, the unit that is resampled when documents are few."""
LOG_PROBS_BYTES = 32 << 20
"""Memory of one read's log-probabilities."""
TARGET_READ_TOKENS = 8192
"""Tokens of one read for a model that gives the targets' log-probabilities alone."""
DIRECT_TOKENS = 100_000
"""Tokens after which `score` is called, short documents being put together."""
RECURRENT_READ_TOKENS = 1024
"""Longest read of one document for a model without windows."""
POOL_READS = 64
"""Windows are sorted by length inside pools of so many reads, so that short documents waste no work."""


@dataclass(frozen=True)
class DocumentScores:
    """What a model needed for each segment of each document, in reading order.

    A segment is a run of up to `SEGMENT_TOKENS` tokens of one document.

    Attributes:
        segment_nats: float64 [segments], minus the sum of the natural-log probabilities.
        segment_tokens: int64 [segments], the document-end token counted.
        segment_bytes: int64 [segments], UTF-8 bytes of the text; a document end has none.
        first_segments: int64 [documents], the first segment of each document.
        context: tokens that a window held; None without windows.
        stride: tokens that the window moved; None without windows.
    """

    segment_nats: np.ndarray
    segment_tokens: np.ndarray
    segment_bytes: np.ndarray
    first_segments: np.ndarray
    context: int | None = None
    stride: int | None = None

    def _by_document(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.first_segments) if len(self.first_segments) else values

    @property
    def nats(self) -> np.ndarray:
        """float64 [documents]."""
        return self._by_document(self.segment_nats)

    @property
    def tokens(self) -> np.ndarray:
        """int64 [documents], end tokens counted."""
        return self._by_document(self.segment_tokens)

    @property
    def bytes(self) -> np.ndarray:
        """int64 [documents], UTF-8 bytes."""
        return self._by_document(self.segment_bytes)

    @property
    def bits_per_byte(self) -> float:
        """All nats, in bits, over all bytes."""
        total = int(self.segment_bytes.sum())
        if total == 0:
            raise Failure("There is no text to measure.", "The documents hold no byte.", "Give it other texts.")
        return float(self.segment_nats.sum() / np.log(2) / total)

    @property
    def token_perplexity(self) -> float:
        """exp(nats / tokens): perplexity for each token of this tokenizer, document ends counted."""
        return float(np.exp(self.segment_nats.sum() / self.segment_tokens.sum()))


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Windows (begin, end, first scored) over `length` tokens, which score every token exactly once.

    The first window scores all that it reads. Each later one ends `stride` tokens on and scores those alone,
    so that they are predicted from at least `window - stride` tokens (Huggingface's strided perplexity). The
    last is moved back to end with the document, at full length.
    """
    end = min(window, length)
    yield 0, end, 0
    while end < length:
        scored = end
        end = min(end + stride, length)
        yield end - window, end, scored


def score_model(
    model: LanguageModel,
    documents: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: torch.device | str | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
    total_tokens: int | None = None,
) -> DocumentScores:
    """Score every token of every document, its final document end included, given the tokens before it.

    The first token of a document is predicted after the tokenizer's `document_begin`, which for our own tokenizers
    is the document-end token. A model with a limited context reads overlapping windows, many at once; one without
    is asked for `score(ids)` where it has that (ids of one or several documents, each closed by its end token), else
    it reads each document from beginning to end. A model with `target_log_probs(tokens [B, T], targets [B, T]) ->
    [B, T]` is asked for that instead of whole distributions.

    Args:
        model: a language model of any family.
        documents: for each document its ids, int64, ending with the document-end token.
        tokenizer: whose ids they are; it says how many bytes each token stands for.
        window: tokens of a window; None takes the model's context, and a window longer than that is cut to
            it.
        stride: tokens that a window moves; None takes half the window.
        device: where the tokens are put; None for the processor.
        batch: windows read at once; None chooses as many as fit into a few tens of megabytes.
        progress: where to report.
        total_tokens: all the documents' tokens, if known, for the progress bar.
    """
    size, step = window_of(model, window, stride)
    log_probs = document_log_probs(model, documents, tokenizer, window=size, stride=step, device=device, batch=batch)

    from textmill.base.progress import Progress as Reporter

    with (
        (progress or Reporter("quiet")).task("Scoring", total_tokens, "tokens") as task,
        torch.inference_mode(),
    ):

        def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for ids, values in log_probs:
                yield ids, values
                task.advance(len(ids))

        return scores_of(counted(), tokenizer, size, step)


def window_of(model: LanguageModel, window: int | None = None, stride: int | None = None) -> tuple[int | None, int]:
    """The window in which a model is scored (None: no limit), and how far it moves each time."""
    limits = [n for n in (window, model.context) if n is not None]
    size = min(limits) if limits else None
    return size, (0 if size is None else max(1, min(size, stride or size // 2)))


def document_log_probs(
    model: LanguageModel,
    documents: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    *,
    window: int | None = None,
    stride: int | None = None,
    device: torch.device | str | None = None,
    batch: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each document's ids with its tokens' log-probabilities in nats (float64), in the order given.

    Arguments as for `score_model`.
    """
    size, step = window_of(model, window, stride)
    score = getattr(model, "score", None)
    if size is not None:
        yield from _score_windows(model, documents, tokenizer.document_begin, size, step, device, batch)
    elif callable(score):
        yield from _score_directly(score, documents, tokenizer.document_end)
    else:
        for ids in documents:
            yield ids, _score_recurrently(model, ids, tokenizer.document_begin, device)


def scores_of(
    log_probs: Iterable[tuple[np.ndarray, np.ndarray]],
    tokenizer: Tokenizer,
    context: int | None = None,
    stride: int | None = None,
) -> DocumentScores:
    """Scores from each document's ids and log-probabilities.

    Raises:
        Failure: there is no document, or a log-probability is not finite.
    """
    nats: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    first: list[int] = []
    segments = 0
    for ids, values in log_probs:
        if len(ids) == 0:
            continue
        cuts = np.arange(0, len(ids), SEGMENT_TOKENS)
        nats.append(-np.add.reduceat(np.asarray(values, dtype=np.float64), cuts))
        tokens.append(np.diff(np.append(cuts, len(ids))))
        sizes.append(np.add.reduceat(tokenizer.byte_lengths[ids], cuts))
        first.append(segments)
        segments += len(cuts)
    if not nats:
        raise Failure("There is no document to measure.", fix="Give it other texts.")
    result = DocumentScores(
        np.concatenate(nats),
        np.concatenate(tokens),
        np.concatenate(sizes),
        np.array(first),
        context,
        stride if context is not None else None,
    )
    if not np.isfinite(result.segment_nats).all():
        raise Failure(
            "The model gives some tokens no probability.",
            "Its log-probabilities hold infinities or NaN: the weights are damaged, or training diverged.",
            "Train it again: textmill train RUN",
        )
    return result


def _target_log_probs(model: LanguageModel, tokens: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Log-probability [B, T] of `targets` after `tokens` [B, T], each row from a fresh state; -1 is not scored."""
    direct: Callable[..., Any] | None = getattr(model, "target_log_probs", None)
    if callable(direct):
        found = direct(tokens, targets)
    else:
        log_probs, _ = model.read(tokens, model.start(len(tokens)))
        found = log_probs.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return np.asarray(found.float().cpu().numpy())


def _score_windows(
    model: LanguageModel,
    documents: Iterable[np.ndarray],
    document_begin: int,
    size: int,
    stride: int,
    device: torch.device | str | None,
    batch: int | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each document with its tokens' log-probabilities, in order, from batches of windows."""
    if batch is None:
        if callable(getattr(model, "target_log_probs", None)):
            batch = TARGET_READ_TOKENS // size
        else:
            batch = LOG_PROBS_BYTES // (4 * size * model.vocabulary)
        batch = max(1, batch)
    pool: list[np.ndarray] = []
    count = 0
    for ids in documents:
        pool.append(np.asarray(ids, dtype=np.int64))
        count += 1 + max(0, len(ids) - size) // stride
        if count >= POOL_READS * batch:
            yield from _score_pool(model, pool, document_begin, size, stride, device, batch)
            pool, count = [], 0
    yield from _score_pool(model, pool, document_begin, size, stride, device, batch)


def _score_pool(
    model: LanguageModel,
    pool: Sequence[np.ndarray],
    document_begin: int,
    size: int,
    stride: int,
    device: torch.device | str | None,
    batch: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    found = [np.empty(len(ids)) for ids in pool]
    inputs = [np.concatenate(([document_begin], ids[:-1])) for ids in pool]
    jobs = [
        (end - begin, number, begin, end, scored)
        for number, ids in enumerate(pool)
        if len(ids)
        for begin, end, scored in windows(len(ids), size, stride)
    ]
    jobs.sort(key=lambda job: job[0], reverse=True)  # stable: rows of one length stay in reading order
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        width = part[0][0]
        # Padding follows the text, and a prediction sees nothing that follows it.
        tokens = np.full((len(part), width), document_begin, dtype=np.int64)
        targets = np.full((len(part), width), -1, dtype=np.int64)  # -1: read, not scored
        for row, (length, number, begin, end, scored) in enumerate(part):
            tokens[row, :length] = inputs[number][begin:end]
            targets[row, scored - begin : length] = pool[number][scored:end]
        values = _target_log_probs(model, torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device))
        for row, (length, number, begin, end, scored) in enumerate(part):
            found[number][scored:end] = values[row, scored - begin : length]
    return list(zip(pool, found, strict=True))


def _score_directly(
    score: Callable[[np.ndarray], np.ndarray], documents: Iterable[np.ndarray], document_end: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each document with its tokens' log-probabilities, short documents being scored many at once."""

    def flush() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if pool:
            values = score(np.concatenate(pool))
            yield from zip(pool, np.split(values, np.cumsum([len(ids) for ids in pool])[:-1]), strict=True)

    pool: list[np.ndarray] = []
    count = 0
    for ids in documents:
        if len(ids) == 0:
            continue
        pool.append(ids)
        count += len(ids)
        if count >= DIRECT_TOKENS or ids[-1] != document_end:  # after a cut document nothing may follow
            yield from flush()
            pool, count = [], 0
    yield from flush()


def _score_recurrently(
    model: LanguageModel, ids: np.ndarray, document_begin: int, device: torch.device | str | None
) -> np.ndarray:
    """Log-probabilities of one document's tokens, read in pieces with the state carried on."""
    piece = max(1, min(RECURRENT_READ_TOKENS, LOG_PROBS_BYTES // (4 * model.vocabulary)))
    inputs = torch.from_numpy(np.concatenate(([document_begin], ids[:-1])).astype(np.int64))[None].to(device)
    targets = torch.from_numpy(np.asarray(ids, dtype=np.int64))[None].to(device)
    state = model.start(1)
    found = []
    for begin in range(0, len(ids), piece):
        log_probs, state = model.read(inputs[:, begin : begin + piece], state)
        part = log_probs.gather(-1, targets[:, begin : begin + piece].unsqueeze(-1))
        found.append(part[0, :, 0].float().cpu().numpy())
    return np.concatenate(found)
