"""Layers and models. Activations inside are time-major, ``[B, N, C]``."""
