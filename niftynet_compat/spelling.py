"""The nearest legal spelling of a word."""

import functools
from collections.abc import Iterable


def nearest(word: str, options: Iterable[str], limit: int = 3) -> str | None:
    """Returns the option with the fewest edits from `word` (case ignored), None when all need more than `limit`.

    An edit is an insertion, a deletion, a substitution or a swap of neighbours. The first of equals wins. At most
    half the letters of a short word may change, or anything would be near it.
    """
    limit = min(limit, (len(word) + 1) // 2)
    best, fewest = None, limit + 1
    for option in options:
        if abs(len(option) - len(word)) < fewest:
            edits = _num_edits(word.lower(), option.lower())
            if edits < fewest:
                best, fewest = option, edits
    return best


# A file of a thousand sections tends to have one misspelling a thousand times.
@functools.lru_cache(maxsize=1 << 14)
def _num_edits(a: str, b: str) -> int:
    rows = [list(range(len(b) + 1))]
    for i, left in enumerate(a, start=1):
        row = [i]
        for j, right in enumerate(b, start=1):
            edits = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                edits = min(edits, rows[i - 2][j - 2] + 1)
            row.append(edits)
        rows.append(row)
    return rows[-1][-1]
