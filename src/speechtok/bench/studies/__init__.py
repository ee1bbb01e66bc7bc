"""Studies over the results of ``speechtok bench``: one question each, answered with tables, intervals and pictures."""
