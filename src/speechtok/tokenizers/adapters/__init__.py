"""Codecs of ``transformers`` behind the tokenizer contract: one thin file per kind, what they share in ``base``."""
