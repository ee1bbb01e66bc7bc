"""Reports: one self-contained HTML page each, with sound and pictures, that works without a network."""
