"""Training loops, one small file each."""
