"""Work in shards that any number of processes share through one folder, and that a kill cannot spoil."""
