"""Layers and models. Latents pass between modules time-major, ``[B, N, C]``."""
