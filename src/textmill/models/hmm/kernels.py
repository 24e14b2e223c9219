"""Compiled forward-backward of hidden Markov models over many documents in step. Touches numba's cache alone.

Documents of a group are laid out time-major: all first tokens, then all second tokens, …, longest document first, so
that those which reach time t are rows 0 to counts[t] and one matrix product moves them all. Probabilities are scaled
at every step (Rabiner 1989, section V.A), with forward and backward normalized each by itself: neither can overflow,
and a state's share is lost only below 1e-308 over the least transition probability (`expectation.py` goes to log
space before that could matter).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

fast: Any = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False, fastmath={"contract"})
"""Multiply-adds may be fused; sums keep their order, so that results do not depend on the number of threads."""

reordering: Any = numba.njit(
    cache=True, nogil=True, error_model="numpy", boundscheck=False, fastmath={"contract", "reassoc"}
)
"""The same for sums over one row, which the compiler may then do several at a time."""

EIGHT = 8
"""Rows of a matrix that one pass over the output adds. State counts are padded to a multiple of it."""
PENDING = 64
"""Pairs of states collected before they are added to the transition counts."""


@reordering
def total_of(row: np.ndarray) -> float:
    """The sum of a row."""
    total = 0.0
    for value in row:
        total += value
    return total


@reordering
def dot(left: np.ndarray, right: np.ndarray) -> float:
    """The inner product of two rows."""
    total = 0.0
    for j in range(len(left)):
        total += left[j] * right[j]
    return total


@fast
def multiply(left: np.ndarray, right: np.ndarray, out: np.ndarray, rows: int) -> None:
    """out[:rows] = left[:rows] @ right; `right` [K, K] with K a multiple of 8. Eight of its rows stay in cache."""
    states = right.shape[0]
    for i in range(rows):
        for j in range(states):
            out[i, j] = 0.0
    for k in range(0, states, 8):
        r0, r1, r2, r3 = right[k], right[k + 1], right[k + 2], right[k + 3]
        r4, r5, r6, r7 = right[k + 4], right[k + 5], right[k + 6], right[k + 7]
        for i in range(rows):
            a0, a1, a2, a3 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
            a4, a5, a6, a7 = left[i, k + 4], left[i, k + 5], left[i, k + 6], left[i, k + 7]
            to = out[i]
            for j in range(states):
                to[j] += ((a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])) + (
                    (a4 * r4[j] + a5 * r5[j]) + (a6 * r6[j] + a7 * r7[j])
                )


@fast
def add_outer(left: np.ndarray, right: np.ndarray, total: np.ndarray, rows: int) -> None:
    """total += left[:rows].T @ right[:rows], rows first filled up with zeros to a multiple of 8."""
    states = total.shape[0]
    while rows % 8:
        left[rows] = 0.0
        right[rows] = 0.0
        rows += 1
    for t in range(0, rows, 8):
        r0, r1, r2, r3 = right[t], right[t + 1], right[t + 2], right[t + 3]
        r4, r5, r6, r7 = right[t + 4], right[t + 5], right[t + 6], right[t + 7]
        for k in range(states):
            a0, a1, a2, a3 = left[t, k], left[t + 1, k], left[t + 2, k], left[t + 3, k]
            a4, a5, a6, a7 = left[t + 4, k], left[t + 5, k], left[t + 6, k], left[t + 7, k]
            to = total[k]
            for j in range(states):
                to[j] += ((a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])) + (
                    (a4 * r4[j] + a5 * r5[j]) + (a6 * r6[j] + a7 * r7[j])
                )


@fast
def pack(tokens: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `tokens`, time-major, of documents sorted by falling length.

    Returns:
        places int64 [n], and offsets int64 [times + 1]: time t is places[offsets[t] : offsets[t + 1]].
    """
    times = lengths[0] if len(lengths) else 0
    offsets = np.zeros(times + 1, np.int64)
    places = np.empty(lengths.sum(), np.int64)
    rows, to = len(lengths), 0
    for t in range(times):
        while lengths[rows - 1] <= t:
            rows -= 1
        for row in range(rows):
            places[to] = begins[row] + t
            to += 1
        offsets[t + 1] = to
    return places, offsets


@fast
def forward(
    tokens: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    before: np.ndarray,
    start: np.ndarray,
    transitions: np.ndarray,
    emissions: np.ndarray,
    beliefs: np.ndarray,
    scales: np.ndarray,
) -> None:
    """Beliefs p(state at t | tokens up to t) for times `first` to `last`, and p(token at t | tokens before).

    Args:
        tokens: int64 [n], packed.
        offsets: int64 [times + 1].
        before: float64 [rows, K], beliefs at `first` - 1; not read where `first` is 0.
        start: float64 [K].
        transitions: float64 [K, K].
        emissions: float64 [V, K].
        beliefs: float64 [tokens of these times, K], filled.
        scales: float64 [n], filled at these times. Where a token is impossible, 0, and the belief becomes uniform.
    """
    states = len(start)
    base = offsets[first]
    for t in range(first, last):
        begin, rows = offsets[t], offsets[t + 1] - offsets[t]
        now = beliefs[begin - base : begin - base + rows]
        if t == 0:
            for row in range(rows):
                now[row] = start
        elif t == first:
            multiply(before, transitions, now, rows)
        else:
            multiply(beliefs[offsets[t - 1] - base :], transitions, now, rows)
        for row in range(rows):
            emission = emissions[tokens[begin + row]]
            belief = now[row]
            for j in range(states):
                belief[j] *= emission[j]
            total = total_of(belief)
            scales[begin + row] = total
            if total > 0:
                share = 1.0 / total
                for j in range(states):
                    belief[j] *= share
            else:
                for j in range(states):
                    belief[j] = 1.0 / states


@fast
def backward(
    tokens: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    after: np.ndarray,
    transposed: np.ndarray,
    emissions: np.ndarray,
    beliefs: np.ndarray,
    pairs: np.ndarray,
) -> None:
    """Turn `beliefs` into posteriors p(state at t | whole document), and add the posteriors of transitions.

    Args:
        tokens: int64 [n], packed.
        offsets: int64 [times + 1].
        first: first of the times.
        last: just after the last of them.
        after: float64 [rows, K]: emission times backward probability at `last`, each row scaled at will; on return,
            the same at `first`. Not read for documents that end before `last`.
        transposed: float64 [K, K], the transitions, transposed.
        emissions: float64 [V, K].
        beliefs: float64 [tokens of these times, K], as `forward` left them; overwritten by the posteriors.
        pairs: float64 [K, K]; expected transitions (without the factor of the transition itself) are added.
    """
    states = len(transposed)
    base = offsets[first]
    waiting = 0
    from_, to = np.empty((PENDING + 8, states)), np.empty((PENDING + 8, states))
    future = np.empty((offsets[first + 1] - offsets[first], states))
    times = len(offsets) - 1
    for t in range(last - 1, first - 1, -1):
        begin, rows = offsets[t], offsets[t + 1] - offsets[t]
        going = offsets[t + 2] - offsets[t + 1] if t + 1 < times else 0
        multiply(after, transposed, future, going)
        for row in range(rows):
            belief, hope = beliefs[begin - base + row], future[row]
            if row >= going:
                for j in range(states):
                    hope[j] = 1.0
            total = dot(belief, hope)
            share = 1.0 / total if total > 0 else 0.0
            if row < going:
                source, target, coming = from_[waiting], to[waiting], after[row]
                for j in range(states):
                    source[j] = belief[j]
                    target[j] = coming[j] * share
                waiting += 1
                if waiting == PENDING:
                    add_outer(from_, to, pairs, waiting)
                    waiting = 0
            emission, coming = emissions[tokens[begin + row]], after[row]
            size = total_of(hope)
            size = 1.0 / size if size > 0 else 0.0
            for j in range(states):
                belief[j] *= hope[j] * share
                coming[j] = emission[j] * hope[j] * size
    add_outer(from_, to, pairs, waiting)


@fast
def add_emissions(tokens: np.ndarray, posteriors: np.ndarray, totals: np.ndarray) -> None:
    """totals[token] += posterior of each of its places; totals [V, K]."""
    states = totals.shape[1]
    for i in range(len(tokens)):
        to, posterior = totals[tokens[i]], posteriors[i]
        for j in range(states):
            to[j] += posterior[j]


@fast
def _log_sum(values: np.ndarray) -> float:
    largest = values.max()
    if largest == -np.inf:
        return largest
    total = 0.0
    for value in values:
        total += np.exp(value - largest)
    return largest + np.log(total)


@fast
def log_forward(
    tokens: np.ndarray,
    log_start: np.ndarray,
    log_transitions: np.ndarray,
    log_emissions: np.ndarray,
    ahead: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Forward pass of one document in log space.

    Args:
        tokens: int64 [n].
        log_start: float64 [K].
        log_transitions: float64 [K, K].
        log_emissions: float64 [V, K].
        ahead: float64 [n, K], filled with log p(tokens up to t, state at t).
        scores: float64 [n], filled with log p(token at t | tokens before).
    """
    states = len(log_start)
    work = np.empty(states)
    so_far = 0.0
    for t in range(len(tokens)):
        for j in range(states):
            if t == 0:
                ahead[t, j] = log_start[j] + log_emissions[tokens[t], j]
                continue
            for i in range(states):
                work[i] = ahead[t - 1, i] + log_transitions[i, j]
            ahead[t, j] = _log_sum(work) + log_emissions[tokens[t], j]
        new = _log_sum(ahead[t])
        scores[t] = new - so_far if so_far > -np.inf else -np.inf
        so_far = new


@fast
def log_expectation(
    tokens: np.ndarray,
    log_start: np.ndarray,
    log_transitions: np.ndarray,
    log_emissions: np.ndarray,
    posteriors: np.ndarray,
    pairs: np.ndarray,
) -> float:
    """Forward-backward of one document in log space; exact with any transition matrix, zeros included.

    Args:
        tokens: int64 [n].
        log_start: float64 [K].
        log_transitions: float64 [K, K].
        log_emissions: float64 [V, K].
        posteriors: float64 [n, K], filled with p(state at t | document).
        pairs: float64 [K, K]; expected transitions are added.

    Returns:
        the log-likelihood in nats; minus infinity, and nothing added, where the document is impossible.
    """
    times, states = posteriors.shape
    ahead, behind, work = np.empty((times, states)), np.zeros((times, states)), np.empty(states)
    log_forward(tokens, log_start, log_transitions, log_emissions, ahead, np.empty(times))
    likelihood = _log_sum(ahead[times - 1])
    if likelihood == -np.inf:
        return likelihood
    for t in range(times - 2, -1, -1):
        for i in range(states):
            for j in range(states):
                work[j] = log_transitions[i, j] + log_emissions[tokens[t + 1], j] + behind[t + 1, j]
            behind[t, i] = _log_sum(work)
            for j in range(states):
                pairs[i, j] += np.exp(ahead[t, i] + work[j] - likelihood)
    for t in range(times):
        # Their sum is the likelihood but for rounding, which grows with the length of the document.
        level = _log_sum(ahead[t] + behind[t])
        for j in range(states):
            posteriors[t, j] = np.exp(ahead[t, j] + behind[t, j] - level)
    return likelihood


@fast
def best_path(
    tokens: np.ndarray,
    log_start: np.ndarray,
    log_transitions: np.ndarray,
    log_emissions: np.ndarray,
    path: np.ndarray,
) -> float:
    """Viterbi's most likely states of one document (Viterbi 1967); of equals, the first.

    Args:
        tokens: int64 [n].
        log_start: float64 [K].
        log_transitions: float64 [K, K], transposed: [to, from].
        log_emissions: float64 [V, K].
        path: int64 [n], filled.

    Returns:
        log-probability of the states and the tokens together, in nats.
    """
    times, states = len(tokens), len(log_start)
    came = np.zeros((times, states), np.int32)
    best, new = log_start + log_emissions[tokens[0]], np.empty(states)
    for t in range(1, times):
        emission = log_emissions[tokens[t]]
        for j in range(states):
            row = log_transitions[j]
            largest, place = best[0] + row[0], 0
            for i in range(1, states):
                value = best[i] + row[i]
                if value > largest:
                    largest, place = value, i
            new[j] = largest + emission[j]
            came[t, j] = place
        best, new = new, best
    path[times - 1] = np.argmax(best)
    for t in range(times - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return float(best[path[times - 1]])
