"""Probes: small recurrent networks that read tokens, and SLMTokBench's mutual information between tokens and text."""
