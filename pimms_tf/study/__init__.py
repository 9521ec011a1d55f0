"""Where settings meet objects: from a configuration to a run, prepared."""
