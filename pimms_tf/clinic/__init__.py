"""A patient: files and folders in, a mask and a report out, without any INI file."""
