"""The n-gram family over token ids: fitted on shards by counting. Reads and writes a model folder."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from textmill import __version__
from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.settings import from_mapping
from textmill.corpus.kernels import kernel, mix
from textmill.models.ngram.config import MAX_ORDER, NGramConfig, check_order
from textmill.models.ngram.documents import draw_documents
from textmill.models.ngram.index import pack
from textmill.models.ngram.tables import Tables, load_arrays, save_arrays
from textmill.models.ngram.train import block_tokens, estimate_from

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.tokens.shards import Shards

READ_ROWS_BYTES = 32 << 20
"""Working memory of `read` for its distributions."""
PROBE_TOKENS = 200_000
"""Tokens fitted to learn how fast this machine counts, where time is limited."""
CAUTION = 2.0
"""Times are estimated this much too long."""
NATS = math.log(10)
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@kernel
def _follow(keys: np.ndarray, bounds: np.ndarray, entries: np.ndarray) -> None:
    """The entries of one order by their context: those of context c are entries[bounds[c]:bounds[c + 1]].

    bounds int64 [contexts + 2] is zero on entry; entries int64 holds places in the table.
    """
    for slot in range(len(keys) // 2):
        if keys[2 * slot] != np.uint64(0xFFFFFFFFFFFFFFFF):
            bounds[np.int64(keys[2 * slot] >> np.uint64(32)) + 2] += 1
    for at in range(2, len(bounds)):
        bounds[at] += bounds[at - 1]
    for slot in range(len(keys) // 2):
        if keys[2 * slot] != np.uint64(0xFFFFFFFFFFFFFFFF):
            context: Any = np.int64(keys[2 * slot] >> np.uint64(32))
            entries[bounds[context + 1]] = slot
            bounds[context + 1] += 1


@kernel
def _spread(
    keys: np.ndarray,
    values: np.ndarray,
    bounds: np.ndarray,
    entries: np.ndarray,
    contexts: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Take rows float32 [n, V] of log probabilities one order up: all times the context's weight, then what was seen
    after it."""
    for row in range(len(rows)):
        context = contexts[row]
        if context < 0:
            continue
        weight = weights[row]
        if weight != 0:
            for token in range(rows.shape[1]):
                rows[row, token] += weight
        for at in range(bounds[context], bounds[context + 1]):
            slot = entries[at]
            rows[row, np.int64(keys[2 * slot] & np.uint64(0xFFFFFFFF))] = values[4 * slot + 2]


@kernel
def _find(keys: np.ndarray, contexts: np.ndarray, tokens: np.ndarray, out: np.ndarray) -> None:
    """Places of n-grams, by the place of their context (-1: none) and their last token."""
    size = np.uint64(len(keys) // 2)
    for row in range(len(tokens)):
        out[row] = -1
        if contexts[row] >= 0:
            key = pack(contexts[row], tokens[row])
            slot = ((mix(key) >> np.uint64(32)) * size) >> np.uint64(32)
            while keys[2 * slot] != np.uint64(0xFFFFFFFFFFFFFFFF):
                if keys[2 * slot] == key:
                    out[row] = np.int64(slot)
                    break
                slot += np.uint64(1)
                if slot == size:
                    slot = np.uint64(0)


class NGram:
    """An n-gram language model; with Kneser-Ney smoothing the one that KenLM estimates.

    Documents are independent. A document is read after one document-end token, which plays the part of `<s>`, and
    closes with one, which plays `</s>`. Every token of the vocabulary has a probability above 0, seen or not, except
    under maximum likelihood.

    Args:
        config: the configuration; or the number of token ids, V, when the next two are given.
        document_end: id of the document-end token.
        order: length of the longest n-gram, 1 to 6.
    """

    family: ClassVar[str] = "ngram"
    config_class: ClassVar[type] = NGramConfig
    context: int | None = None

    def __init__(self, config: NGramConfig | int, document_end: int | None = None, order: int = 5) -> None:
        if not isinstance(config, NGramConfig):
            check_order(order)
            config = NGramConfig(int(config), document_end or 0, order)
        self.config = config
        self.vocabulary, self.document_end, self.order = config.vocabulary, config.document_end, config.order
        self.discounts: list[tuple[float, ...]] = []
        """For each order from 1, the Kneser-Ney discounts of counts 0, 1, 2 and 3 or more."""
        self.tokens = 0
        """Tokens that the model was fitted on."""
        uniform = np.full(self.vocabulary + 1, -math.log10(self.vocabulary), dtype=np.float32)
        # The id V is `<s>`: a document end that was read, where id `document_end` is one that is predicted.
        empty = [np.full(4, 0xFFFFFFFFFFFFFFFF, dtype=np.uint64) for _ in range(2, config.order + 1)]
        self._install(Tables(uniform, np.zeros_like(uniform), empty, True, [0] * config.order))

    def _install(self, tables: Tables) -> None:
        self.tables = tables
        self._followers: list[tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def parameters(self) -> int:
        """Number of stored n-grams, of all orders together."""
        return self.tables.grams

    @property
    def size(self) -> int:
        """Number of trained values: the n-grams, each a probability (and a weight that follows from others)."""
        return self.parameters

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[NGramConfig]:
        """Orders that are worth trying on so many tokens, low to high; `context` does not matter."""
        most = next(order for order, tokens in ((3, 10**5), (4, 10**6), (5, 10**9), (6, None)) if tokens is None
                    or train_tokens < tokens)  # fmt: skip
        return [NGramConfig(vocabulary, order=order) for order in range(1, min(most, MAX_ORDER) + 1)]

    def fit(
        self,
        source: np.ndarray | Shards,
        *,
        max_tokens: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> NGram:
        """Count the n-grams of `source` and estimate from them; replaces what was fitted before.

        Args:
            source: token ids [N], each document followed by its end token; or shards of such ids.
            max_tokens: fit on at most so many tokens: whole documents, drawn at random by `seed`, in their order.
            seconds: fit on no more tokens than this affords, found out by fitting a few.
            seed: of the draw.
            memory: bytes that counting may use; more tokens than fit go through temporary files. None takes half of
                the machine's memory.
            progress: where to report.

        Returns:
            the model itself.

        Raises:
            Failure: there is no token, or one outside of the vocabulary.
        """
        total = len(source) if isinstance(source, np.ndarray) else source.tokens
        if not isinstance(source, np.ndarray) and source.document_end != self.document_end:
            self.config = replace(self.config, document_end=source.document_end)
            self.document_end = source.document_end
        if seconds is not None and total > PROBE_TOKENS:
            began = time.monotonic()
            for _ in range(2):  # the first compiles
                began = time.monotonic()
                self.fit(source, max_tokens=PROBE_TOKENS, seed=seed)
            pace = CAUTION * (time.monotonic() - began) / PROBE_TOKENS
            affordable = max(PROBE_TOKENS, int(seconds / pace))
            max_tokens = min(max_tokens or affordable, affordable)
        drawn = max_tokens is not None and max_tokens < total
        taken = draw_documents(source, self.document_end, max_tokens, seed) if drawn else source
        self.tokens = len(taken) if isinstance(taken, np.ndarray) else taken.tokens
        if self.tokens == 0:
            raise Failure("The n-gram model has nothing to count.", "The training split holds no token.")
        from textmill.base.progress import Progress as Reporter

        with (
            (progress or Reporter("quiet")).task(f"Counting {self.order}-grams", self.tokens, "tokens") as task,
            tempfile.TemporaryDirectory(prefix="textmill-ngrams-") as folder,
        ):

            def blocks() -> Iterator[tuple[np.ndarray, int, int]]:
                for block in self._blocks(taken, block_tokens(memory)):
                    yield (*block, self.vocabulary + 1)
                    task.advance(len(block[0]))

            grams, _, _ = estimate_from(
                blocks(), self.config.training(), self.vocabulary, Path(folder), vocabulary=self.vocabulary
            )
            task.update(self.tokens)
            self.discounts = grams.discounts
            tables = Tables.build(grams)
        tables.log10[self.vocabulary] = 0
        tables.counts[0] = int(self._seen)
        self._install(tables)
        return self

    def _blocks(self, source: np.ndarray | Shards, size: int) -> Iterator[tuple[np.ndarray, int]]:
        """The tokens with a `<s>` before each document, int32, in blocks that begin with what came before them."""
        total = len(source) if isinstance(source, np.ndarray) else source.tokens
        begin = np.int32(self.vocabulary)
        tail = np.array([begin], dtype=np.int32)
        first = 1
        seen = np.zeros(self.vocabulary, dtype=np.bool_)
        for at in range(0, total, size):
            stop = min(at + size, total)
            part = source[at:stop] if isinstance(source, np.ndarray) else source.read(at, stop)
            if int(part.min()) < 0 or int(part.max()) >= self.vocabulary:
                raise Failure(
                    "The n-gram model cannot count these tokens.",
                    f"They hold ids outside 0 to {self.vocabulary - 1}: the shards are of another tokenizer.",
                    "Make them again with: textmill tokenize RUN",
                )
            seen[part] = True
            block = np.concatenate([tail, self._with_begins(np.asarray(part))])
            yield block, first
            tail = block[max(0, len(block) - max(1, self.order - 1)) :].copy()
            first = len(tail)
        self._seen = int(seen.sum())

    def _with_begins(self, ids: np.ndarray) -> np.ndarray:
        """The ids, int32, with the id V after each document end, where a document begins."""
        ends = np.flatnonzero(ids == self.document_end) + 1
        return np.insert(ids.astype(np.int32), ends, np.int32(self.vocabulary))

    def start(self, batch: int) -> np.ndarray:
        """The state before any token, int64 [batch, order - 1]: the place of the last k-gram, -1 for none."""
        return np.full((batch, max(1, self.order - 1)), -1, dtype=np.int64)

    def read(self, tokens: torch.Tensor, state: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Read `tokens` [B, T]: log-probabilities [B, T, V] (nats) after each of them, and the new state.

        Under maximum likelihood what was never seen is -inf.
        """
        ids = tokens.detach().cpu().numpy().astype(np.int64)
        batch, length = ids.shape
        places = np.full((batch, length, state.shape[1]), -1, dtype=np.int64)
        places[:, :, 0] = np.where(ids == self.document_end, self.vocabulary, ids)
        for k in range(1, state.shape[1]):
            before = np.concatenate([state[:, None, k - 1], places[:, :-1, k - 1]], axis=1).reshape(-1)
            found = np.empty(batch * length, dtype=np.int64)
            _find(self.tables.keys[k - 1], before, places[:, :, 0].reshape(-1), found)
            places[:, :, k] = found.reshape(batch, length)
        flat = places.reshape(batch * length, -1)
        result = np.empty((batch * length, self.vocabulary), dtype=np.float32)
        step = max(1, READ_ROWS_BYTES // (4 * self.vocabulary))
        for first in range(0, len(result), step):
            part = slice(first, first + step)
            self._distributions(flat[part], result[part])
        new = places[:, -1].copy() if length else state
        return torch.from_numpy(result.reshape(batch, length, self.vocabulary)).to(tokens.device), new

    def _distributions(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Write the distributions [n, V] in nats after histories whose k-grams stand at places [n, order - 1]."""
        tables = self.tables
        rows[:] = tables.log10[: self.vocabulary]
        for k, (table, (bounds, entries)) in enumerate(zip(tables.keys, self.followers, strict=True)):
            contexts = np.ascontiguousarray(places[:, k])
            known = np.maximum(contexts, 0)
            weights = tables.backoff[known] if k == 0 else tables.keys[k - 1].view(np.float32)[4 * known + 3]
            _spread(table, table.view(np.float32), bounds, entries, contexts, weights, rows)
        rows *= np.float32(NATS)

    @property
    def followers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each order from 2, what was seen after each context (`_follow`); made when first asked for."""
        if self._followers is None:
            self._followers = []
            contexts = self.vocabulary + 1
            for k, table in enumerate(self.tables.keys, start=1):
                bounds = np.zeros(contexts + 2, dtype=np.int64)
                entries = np.empty(self.tables.counts[k], dtype=np.int64)
                _follow(table, bounds, entries)
                self._followers.append((bounds[:-1], entries))
                contexts = len(table) // 2
        return self._followers

    def score(self, ids: np.ndarray) -> np.ndarray:
        """Natural-log probability of each token of one document given those before it, float64 [len(ids)].

        The first token is predicted after a document end. Several documents may follow one another, each with its
        end token: every one is then scored by itself.

        Raises:
            Failure: under maximum likelihood a token has no probability, so the text has none.
        """
        ids = np.asarray(ids, dtype=np.int64)
        text = np.concatenate([[np.int32(self.vocabulary)], self._with_begins(ids)]).astype(np.int32)
        log10, _ = self.tables.score(text)
        found = log10[text != self.vocabulary].astype(np.float64) * NATS
        impossible = int(np.isneginf(found).sum())
        if impossible:
            raise Failure(
                f"The n-gram model gives {impossible:,} of {len(found):,} tokens no probability.",
                "Maximum likelihood takes what it never saw for impossible; its perplexity on this text is infinite.",
                "Choose a smoothing that leaves room for it: kneser-ney, witten-bell or add-k.",
            )
        return found

    def save(self, folder: Path, document_end: int | None = None) -> None:
        """Write `config.json` and `model.safetensors` into `folder`; the latter is mapped into memory when opened."""
        folder.mkdir(parents=True, exist_ok=True)
        if document_end is not None and document_end != self.document_end:
            raise ValueError(f"document end {document_end}; the model was fitted with {self.document_end}")
        facts = self.tables.facts | {"tokens": str(self.tokens)}
        save_arrays(folder / WEIGHTS, self.tables.arrays(), facts)
        write_json(
            folder / CONFIG,
            {
                "textmill_family": self.family,
                "textmill": asdict(self.config),
                "textmill_version": __version__,
                "document_end": self.document_end,
                "model_type": f"textmill-{self.family}",
                "discounts": [list(values) for values in self.discounts],
            },
        )

    @classmethod
    def load(cls, folder: Path, device: Any = None, precision: Any = "fp32") -> NGram:
        """Open a folder that `save` wrote; `device` and `precision` do not matter.

        Raises:
            Failure: a file is missing or damaged, or the two do not fit each other.
        """
        try:
            written = read_json(folder / CONFIG)
            model = cls(from_mapping(NGramConfig, written["textmill"]))
            arrays, facts = load_arrays(folder / WEIGHTS)
            tables = Tables.of(arrays, facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(
                f"{folder} holds no whole n-gram model.", f"{type(error).__name__}: {error}", "Train it again."
            ) from error
        if tables.order != model.order or len(tables.log10) != model.vocabulary + 1:
            raise Failure(
                f"{folder} holds no whole n-gram model.",
                f"{CONFIG} says order {model.order} and {model.vocabulary} tokens; {WEIGHTS} has order {tables.order} "
                f"and {len(tables.log10) - 1}.",
                "Train it again.",
            )
        model._install(tables)
        model.tokens = int(facts["tokens"])
        model.discounts = [tuple(values) for values in written.get("discounts", [])]
        return model
