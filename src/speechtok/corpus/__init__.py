"""Corpora: from recordings to shards of tokens, resumable, and from shards to whatever reads them."""
