"""Ingle: a language model that you keep at home."""

__version__ = "0.1.0"
