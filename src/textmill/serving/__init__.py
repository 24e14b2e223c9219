"""Weights to HTTP: an API that the OpenAI clients understand, keys, limits, metrics. Needs textmill[serve]."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {"KeyStore": "keys", "Library": "library", "ServeConfig": "config", "make_app": "app", "serve": "server"},
)
