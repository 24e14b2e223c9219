"""What every room uses: errors, progress, run directories, settings, hardware facts."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Failure": "errors",
        "Interrupted": "errors",
        "TextmillError": "errors",
        "UsageError": "errors",
        "Hardware": "hardware",
        "hardware": "hardware",
        "Progress": "progress",
        "Run": "run",
        "Stage": "run",
    },
)
