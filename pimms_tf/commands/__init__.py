"""Command lines: argv → one call → exit code."""
