"""Textmill: from a folder of raw text to a language model of your own."""

__version__ = "0.1.0"
