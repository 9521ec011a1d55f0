"""From subjects to batches of windows: the order of visits, threads, trays, and a cache of prepared subjects."""
