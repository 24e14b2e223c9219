"""The hidden Markov language model: one hidden state behind every token. Reads and writes a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from textmill import __version__
from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.settings import from_mapping
from textmill.models.hmm import kernels
from textmill.models.hmm.config import HiddenMarkovConfig
from textmill.models.hmm.expectation import Expectation, Parameters, document_bounds
from textmill.models.hmm.learning import Documents, Learner
from textmill.models.neural import WEIGHTS, reading_model
from textmill.models.ngram.documents import draw_documents

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.tokens.shards import Shards

READ_BYTES = 64 << 20
"""Working memory of `read` for its distributions."""


class HiddenMarkov:
    """A hidden Markov language model: p(w, z) = start(z_1) prod_t transitions(z_t-1, z_t) emissions(z_t, w_t).

    Documents are independent. Each is the sequence of its tokens and its document-end token, which is a token like
    others and the last that is emitted. What is read after a document-end token begins a new document: the state of
    its first token is drawn from `start`, so reading that one token first is beginning anew.

    The state of the protocol is the belief over the hidden state of the *next* token, float64 [batch, K].

    Args:
        config: its shape.
        parameters: its distributions; None for uniform ones, which `fit` replaces.
    """

    family = "hmm"
    config_class = HiddenMarkovConfig
    context: int | None = None

    def __init__(self, config: HiddenMarkovConfig, parameters: Parameters | None = None) -> None:
        self.config, self.vocabulary = config, config.vocabulary
        states, vocabulary = config.states, config.vocabulary
        self.history: list[dict[str, Any]] = []
        """How learning went: see `Learner.history`."""
        self.tokens = 0
        """Tokens read in learning, all passes together."""
        self.occupancy = np.full(states, 1.0 / states)
        """float64 [K]: share of the training tokens that each state is expected to have emitted."""
        self._set(
            parameters
            or Parameters(
                np.full(states, 1.0 / states),
                np.full((states, states), 1.0 / states),
                np.full((states, vocabulary), 1.0 / vocabulary),
            )
        )

    def _set(self, parameters: Parameters) -> None:
        """Take over parameters as they would come back from disk, so that a saved model is the same model."""
        rounded = [
            np.asarray(values, dtype=np.float32).astype(np.float64)
            for values in (parameters.start, parameters.transitions, parameters.emissions)
        ]
        self.parameters = Parameters(*(values / values.sum(axis=-1, keepdims=True) for values in rounded))
        self._expectation = Expectation(self.parameters)
        self._by_token = np.ascontiguousarray(self.parameters.emissions.T)
        self._emissions = torch.from_numpy(self.parameters.emissions.astype(np.float32))

    @property
    def states(self) -> int:
        """Number of hidden states, K."""
        return self.config.states

    @property
    def size(self) -> int:
        """Number of learned values: K + K^2 + K V."""
        return self.states * (1 + self.states + self.vocabulary)

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[HiddenMarkovConfig]:
        """Sizes to choose from, small to large; none with more emission probabilities than twice the tokens."""
        most = max(16, 2 * train_tokens // vocabulary)
        return [HiddenMarkovConfig(vocabulary, states=states) for states in (16, 32, 64, 128, 256) if states <= most]

    def fit(
        self,
        source: np.ndarray | Shards,
        *,
        max_tokens: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> HiddenMarkov:
        """Learn from `source` by expectation maximization, as the config says; replaces what was learned before.

        Args:
            source: token ids [N], each document followed by its end token; or shards of such ids, of any size: they are
                read a part at a time.
            max_tokens: learn from at most so many: whole documents, drawn at random by `seed`.
            seconds: longest time; learning stops early to keep it, but one batch is always read.
            seed: of the draw, the start, and the order of the batches.
            progress: where to report.

        Returns:
            the model itself.

        Raises:
            Failure: there is no token, or ids are outside the vocabulary.
        """
        if not isinstance(source, np.ndarray) and source.document_end != self.config.document_end:
            self.config = dataclasses.replace(self.config, document_end=source.document_end)
        if max_tokens is not None:
            source = draw_documents(source, self.config.document_end, max_tokens, seed)
        documents = Documents(source, self.config.document_end)
        learner = Learner(self.config, documents, seed, seconds, progress).run()
        self._set(learner.parameters)
        self.history = learner.history
        self.tokens = sum(entry["tokens"] for entry in learner.history)
        shares = learner.counts.emissions.sum(axis=0)
        self.occupancy = shares / shares.sum()
        return self

    def start(self, batch: int) -> np.ndarray:
        """The state before any token: the start distribution, float64 [batch, K]."""
        return np.repeat(self.parameters.start[None], batch, axis=0)

    def read(self, tokens: torch.Tensor, state: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Read `tokens` [B, T]: log-probabilities [B, T, V] (nats) after each of them, and the new belief [B, K]."""
        ids = tokens.detach().cpu().numpy().astype(np.int64)
        batch, length = ids.shape
        beliefs = np.empty((batch, length, self.states))
        belief = state
        for t in range(length):
            belief = belief * self._by_token[ids[:, t]]
            sums = belief.sum(axis=1, keepdims=True)
            belief = np.divide(belief, sums, out=np.full_like(belief, 1.0 / self.states), where=sums > 0)
            belief = belief @ self.parameters.transitions
            belief[ids[:, t] == self.config.document_end] = self.parameters.start
            beliefs[:, t] = belief
        flat = torch.from_numpy(beliefs.reshape(-1, self.states).astype(np.float32))
        result = torch.empty((len(flat), self.vocabulary))
        step = max(1, READ_BYTES // (4 * self.vocabulary))
        for begin in range(0, len(flat), step):
            torch.mm(flat[begin : begin + step], self._emissions, out=result[begin : begin + step])
        return result.log_().reshape(batch, length, self.vocabulary).to(tokens.device), belief

    def score(self, ids: np.ndarray) -> np.ndarray:
        """Natural-log probability of each token given those before it in its document, float64 [len(ids)].

        Several documents may follow one another, each with its end token: every one is then scored by itself.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        return self._expectation.score(tokens, document_bounds(tokens, self.config.document_end))

    def decode(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Viterbi: the likeliest hidden states behind each document.

        Args:
            ids: documents, each closed by its end token, int64 [N].

        Returns:
            states int64 [N], and for each document the log-probability (nats) of states and tokens together.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        ends = document_bounds(tokens, self.config.document_end)
        path, found = np.empty(len(tokens), dtype=np.int64), np.empty(len(ends))
        with np.errstate(divide="ignore"):
            start, into = np.log(self.parameters.start), np.log(np.ascontiguousarray(self.parameters.transitions.T))
            emissions = np.log(self._by_token)
        begin = 0
        for number, end in enumerate(ends.tolist()):
            found[number] = kernels.best_path(tokens[begin:end], start, into, emissions, path[begin:end])
            begin = end
        return path, found

    def stationary(self) -> np.ndarray:
        """The distribution over states that the transitions leave as it is, float64 [K]: the least-squares solution of
        p A = p, sum(p) = 1."""
        matrix = np.vstack([self.parameters.transitions.T - np.eye(self.states), np.ones(self.states)])
        wanted = np.append(np.zeros(self.states), 1.0)
        found = np.clip(np.linalg.lstsq(matrix, wanted, rcond=None)[0], 0, None)
        return np.asarray(found / found.sum())

    def durations(self) -> np.ndarray:
        """Expected number of tokens that the model stays in each state once there, float64 [K]: 1 / (1 - A_kk)."""
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / (1.0 - np.diag(self.parameters.transitions)))

    def top_tokens(self, count: int = 10, by: Literal["probability", "lift"] = "probability") -> np.ndarray:
        """Ids of the tokens that tell most about each state, int64 [K, count].

        Args:
            count: how many.
            by: "probability", p(token | state); or "lift", p(token | state) log(p(token | state) / p(token)), which
                leaves out what is frequent everywhere.
        """
        emissions = self.parameters.emissions
        if by == "lift":
            overall = self.occupancy @ emissions
            emissions = emissions * np.log(emissions / overall)
        return np.argsort(-emissions, axis=1, kind="stable")[:, :count]

    def save(self, folder: Path, document_end: int | None = None) -> None:
        """Write config.json and model.safetensors (start [K], transitions [K, K], emissions [K, V], occupancy [K]; all
        float32) into `folder`. `document_end` is checked against the model's own."""
        if document_end is not None and document_end != self.config.document_end:
            raise Failure(
                "The hidden Markov model was learned with another document end.",
                f"It is token {self.config.document_end} there, {document_end} in the tokenizer.",
                "Train it again on the tokens of this run.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        values = {
            "start": self.parameters.start,
            "transitions": self.parameters.transitions,
            "emissions": self.parameters.emissions,
            "occupancy": self.occupancy,
        }
        save_file({name: value.astype(np.float32) for name, value in values.items()}, folder / WEIGHTS)
        record = {
            "textmill_family": self.family,
            "textmill_version": __version__,
            "textmill": dataclasses.asdict(self.config),
            "history": self.history,
        }
        write_json(folder / "config.json", record)

    @classmethod
    def load(cls, folder: Path, device: Any = None, precision: str = "fp32") -> HiddenMarkov:
        """Open a model folder. The model works on the CPU, whatever `device` and `precision` say.

        Raises:
            Failure: a file is missing or damaged, or of another family.
        """
        with reading_model(folder):
            record = read_json(folder / "config.json")
            if record.get("textmill_family") != cls.family:
                raise KeyError("textmill_family")
            config = from_mapping(HiddenMarkovConfig, record["textmill"])
            values = load_file(folder / WEIGHTS)
            parameters = Parameters(values["start"], values["transitions"], values["emissions"])
            shapes = (config.states,), (config.states, config.states), (config.states, config.vocabulary)
            if (parameters.start.shape, parameters.transitions.shape, parameters.emissions.shape) != shapes:
                raise ValueError("the tensors are not of the shape that config.json says")
            occupancy = values["occupancy"].astype(np.float64)
        model = cls(config, parameters)
        model.occupancy = occupancy
        model.history = record.get("history", [])
        model.tokens = sum(entry["tokens"] for entry in model.history)
        return model
