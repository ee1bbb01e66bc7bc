"""Training: one loop, and what learns in it (codecs, teachers, units)."""
