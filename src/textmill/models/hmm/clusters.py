"""Where learning a hidden Markov model starts: tokens grouped by their neighbours, or chance. No files."""

from __future__ import annotations

import numpy as np

from textmill.models.hmm.expectation import Statistics

FEATURES = 256
"""Most frequent tokens that neighbours are told apart by; all others count as one."""
ROUNDS = 12
"""Rounds of k-means."""
CLUSTER_TOKENS = 4_000_000
"""Tokens that neighbours are counted in, from the beginning of the text."""
PRIOR = 5.0
"""Neighbours, spread as over all tokens, that every token is taken to have had besides its own."""
BLOCK = 4096
"""Tokens whose distances are worked out at once."""


def neighbours(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """What stands before and after each token, float32 [V, 2 * FEATURES]: square roots of shares.

    Euclidean distance between rows is then the Hellinger distance of the distributions.
    """
    counts = np.bincount(tokens, minlength=vocabulary)
    features = min(FEATURES, vocabulary)
    feature = np.full(vocabulary, features - 1, dtype=np.int64)
    frequent = np.argsort(-counts, kind="stable")[: features - 1]
    feature[frequent] = np.arange(features - 1)
    halves = []
    for centre, other in ((tokens[1:], tokens[:-1]), (tokens[:-1], tokens[1:])):
        seen = np.bincount(centre * features + feature[other], minlength=vocabulary * features)
        seen = seen.reshape(vocabulary, features).astype(np.float32)
        total = seen.sum(axis=0)
        seen += np.float32(PRIOR) * total / max(float(total.sum()), 1.0)
        halves.append(np.sqrt(seen / seen.sum(axis=1, keepdims=True)))
    return np.concatenate(halves, axis=1)


def cluster_tokens(tokens: np.ndarray, vocabulary: int, clusters: int, seed: int) -> np.ndarray:
    """A cluster for every token, int64 [V], by k-means over its neighbours, tokens weighed by the root of their count.

    The first centres are drawn as in k-means++ (Arthur and Vassilvitskii 2007); a cluster that empties is given the
    token that lies farthest from its own centre.
    """
    generator = np.random.default_rng(seed)
    points = neighbours(tokens, vocabulary)
    weights = np.sqrt(np.bincount(tokens, minlength=vocabulary)).astype(np.float64)
    if not weights.any():
        weights[:] = 1.0
    centres = np.empty((clusters, points.shape[1]), dtype=np.float32)
    nearest = np.full(vocabulary, np.inf)
    chances = weights
    for k in range(clusters):
        place = generator.choice(vocabulary, p=chances / chances.sum())
        centres[k] = points[place]
        nearest = np.minimum(nearest, np.square(points - centres[k]).sum(axis=1))
        chances = weights * nearest
        if not chances.sum() > 0:
            chances = weights
    chosen = np.zeros(vocabulary, dtype=np.int64)
    for _ in range(ROUNDS):
        distances = np.empty(vocabulary)
        squares = np.square(centres).sum(axis=1)
        for at in range(0, vocabulary, BLOCK):
            found = squares - 2 * (points[at : at + BLOCK] @ centres.T)
            chosen[at : at + BLOCK] = found.argmin(axis=1)
            distances[at : at + BLOCK] = found.min(axis=1) + np.square(points[at : at + BLOCK]).sum(axis=1)
        sizes = np.bincount(chosen, weights=weights, minlength=clusters)
        farthest = iter(np.argsort(-distances * weights, kind="stable"))
        for k in np.flatnonzero(sizes == 0).tolist():
            chosen[next(farthest)] = k
        sums = np.zeros((clusters, points.shape[1]))
        np.add.at(sums, chosen, points * weights[:, None])
        sizes = np.bincount(chosen, weights=weights, minlength=clusters)
        filled = sizes > 0
        centres[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    return chosen


def clustered(tokens: np.ndarray, ends: np.ndarray, vocabulary: int, states: int, seed: int) -> Statistics:
    """Counts as if every token had been emitted by its cluster's state."""
    tokens = tokens[:CLUSTER_TOKENS]
    ends = ends[ends <= len(tokens)]
    states_of = cluster_tokens(tokens, vocabulary, states, seed)
    counts = Statistics.zero(states, vocabulary)
    path = states_of[tokens]
    inside = np.ones(max(len(tokens) - 1, 0), dtype=bool)
    inside[ends[ends < len(tokens)] - 1] = False
    pairs = path[:-1][inside] * states + path[1:][inside]
    counts.transitions += np.bincount(pairs, minlength=states * states).reshape(states, states)
    np.add.at(counts.start, path[np.concatenate(([0], ends[ends < len(tokens)]))], 1.0)
    np.add.at(counts.emissions, (np.arange(vocabulary), states_of), np.bincount(tokens, minlength=vocabulary))
    counts.tokens = len(tokens)
    return counts


def scattered(tokens: np.ndarray, ends: np.ndarray, vocabulary: int, states: int, seed: int) -> Statistics:
    """Counts of the tokens, shared out to the states at random, with transitions at random."""
    generator = np.random.default_rng(seed)
    counts = Statistics.zero(states, vocabulary)
    shares = generator.dirichlet(np.ones(states), size=vocabulary)
    counts.emissions += shares * np.bincount(tokens, minlength=vocabulary)[:, None]
    counts.transitions += generator.dirichlet(np.ones(states), size=states) * (len(tokens) / states)
    counts.start += generator.dirichlet(np.ones(states)) * len(ends)
    counts.tokens = len(tokens)
    return counts
