"""The tasks of ``speechtok bench``, one file each, and what runs them."""
