"""TokenChain (arXiv 2510.06201): a recogniser and a speaker of tokens, closed into one chain."""
