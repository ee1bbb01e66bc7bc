"""Tokenizers: one contract (``base``), one file per kind, and the list of models (``registry``)."""
