"""How messages count things, and call several at once."""

from collections.abc import Iterable


def counted(number: int, one: str, many: str = "") -> str:
    """Returns the number and what there is of it: "1 subject has" or "2 subjects have".

    `one` and `many` follow the number; `many` is by default `one` with an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def shown(text: str) -> str:
    """Returns a name on one line: control characters, and bytes that are no UTF-8, become \\n or \\udcff."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def some_of(names: Iterable[str], most: int = 5) -> str:
    """The first few names in order and how many more there are; "none" for none."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none"
