"""How messages call several things at once."""

from collections.abc import Iterable


def some_of(names: Iterable[str], most: int = 5) -> str:
    """The first few names in order and how many more there are; "none" for none."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none"
