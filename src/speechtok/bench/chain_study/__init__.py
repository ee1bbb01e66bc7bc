"""A study of the chain: variants of one training, several seeds of each, measured alike. See ``__main__``."""
