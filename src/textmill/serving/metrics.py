"""Prometheus metrics under vLLM's names, so that its dashboards work. Touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from textmill.generation.engine.stats import EngineStats, Observer

SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
)
HISTOGRAMS = {
    "time_to_first_token": ("vllm:time_to_first_token_seconds", "From a request's arrival to its first token."),
    "inter_token": ("vllm:inter_token_latency_seconds", "From one token of a sample to its next."),
    "e2e": ("vllm:e2e_request_latency_seconds", "From a request's arrival to the end of a sample."),
    "queue": ("vllm:request_queue_time_seconds", "Time that a request waited before it was begun."),
    "prefill": ("vllm:request_prefill_time_seconds", "Time in which a prompt was read."),
}
REASONS = {"end": "stop", "stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}


class Metrics:
    """Metrics of all models of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._histograms = {
            name: Histogram(full, about, ["model_name"], buckets=SECONDS, registry=self.registry)
            for name, (full, about) in HISTOGRAMS.items()
        }
        self.overhead = Histogram(
            "textmill:http_request_seconds", "Whole requests by route and status.", ["route", "status"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._stats: dict[str, Any] = {}
        self.registry.register(self)  # type: ignore[arg-type]

    def watch(self, model: str, stats: Any) -> Observer:
        """Begin to report a model.

        Args:
            model: its name.
            stats: gives its `EngineStats`.

        Returns:
            what the engine tells its durations.
        """
        self._stats[model] = stats
        bound = {name: histogram.labels(model) for name, histogram in self._histograms.items()}

        def observe(name: str, seconds: float) -> None:
            bound[name].observe(seconds)

        return observe

    def forget(self, model: str) -> None:
        """Stop reporting a model."""
        self._stats.pop(model, None)

    def collect(self) -> Iterator[Any]:
        """What the engines count, for the registry."""
        gauges = {
            "num_requests_running": ("Samples being worked on.", lambda s: s.running),
            "num_requests_waiting": ("Requests not begun yet.", lambda s: s.waiting),
            "kv_cache_usage_perc": (
                "Share of the memory for cached prompts in use, 0 to 1.",
                lambda s: s.cache_bytes / s.cache_limit if s.cache_limit else 0.0,
            ),
        }
        counters = {
            "prompt_tokens": ("Tokens of prompts.", lambda s: s.prompt_tokens),
            "generation_tokens": ("Tokens written.", lambda s: s.generation_tokens),
            "prefix_cache_queries": ("Tokens of prompts looked for among cached ones.", lambda s: s.prefix_queries),
            "prefix_cache_hits": ("Tokens of prompts found there.", lambda s: s.prefix_hits),
            "num_preemptions": ("Samples put off for lack of memory.", lambda s: s.preemptions),
        }
        stats: dict[str, EngineStats] = {model: read() for model, read in list(self._stats.items())}
        for name, (about, value) in gauges.items():
            gauge = GaugeMetricFamily(f"vllm:{name}", about, labels=["model_name"])
            for model, one in stats.items():
                gauge.add_metric([model], value(one))
            yield gauge
        for name, (about, value) in counters.items():
            counter = CounterMetricFamily(f"vllm:{name}", about, labels=["model_name"])
            for model, one in stats.items():
                counter.add_metric([model], value(one))
            yield counter
        success = CounterMetricFamily(
            "vllm:request_success", "Samples ended.", labels=["model_name", "finished_reason"]
        )
        for model, one in stats.items():
            totals: dict[str, int] = {}
            for reason, count in one.finished.items():
                totals[REASONS[reason]] = totals.get(REASONS[reason], 0) + count
            for reason, count in totals.items():
                success.add_metric([model, reason], count)
        yield success

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
