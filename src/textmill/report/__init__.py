"""Run directory -> one HTML page that stands alone."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(__name__, {"build_report": "build", "collect": "data"})
