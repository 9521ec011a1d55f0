"""The table of all sections and keys of an INI file: types, defaults, legal words, verdicts, NiftyNet's own words."""
