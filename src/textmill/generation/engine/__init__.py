"""Many requests on one model at once: continuous batching, prefix cache, streaming. One thread owns the model."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Busy": "request",
        "Engine": "engine",
        "EngineConfig": "config",
        "EngineStats": "stats",
        "Event": "request",
        "Ticket": "request",
    },
)
