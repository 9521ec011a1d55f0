"""What a verb does with a prepared run: train, segment a cohort, evaluate, export, take over a checkpoint."""
