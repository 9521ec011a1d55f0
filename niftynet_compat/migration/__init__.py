"""What becomes of a NiftyNet file here: verdicts for its keys, differences in meaning, and a cleaned file."""
