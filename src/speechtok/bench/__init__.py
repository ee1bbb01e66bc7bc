"""Measurements: metrics of one pair of signals, statistics over many, and runs that put them together."""
