"""Evaluation: bits per byte of any language model on any text, beside baselines, with intervals."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Compressed": "compressors",
        "DocumentScores": "score",
        "EvaluationConfig": "config",
        "Interval": "bootstrap",
        "compress": "compressors",
        "evaluate_run": "evaluate",
        "evaluate_texts": "evaluate",
        "ratio_interval": "bootstrap",
        "score_model": "score",
    },
)
