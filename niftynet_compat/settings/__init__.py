"""From the text of an INI file and words of a command line to one checked, frozen configuration, and back to text."""
