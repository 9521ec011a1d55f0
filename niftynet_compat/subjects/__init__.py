"""Which file belongs to which subject, and which subject to which phase: folder search, lists, data splits."""
