"""What becomes of a run in which something went wrong with some subjects: the others are done, and this is told."""

import logging
from collections.abc import Mapping
from typing import NoReturn

from pimms_tf.errors import InputError
from pimms_tf.wording import counted, some_of

log = logging.getLogger(__name__)

# What can be wrong with one subject; anything else is a fault of ours.
_MISTAKES = (InputError, OSError, MemoryError)


def sentence(error: Exception) -> str:
    """Returns what ended a subject, in words for the user."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory for it ({str(error) or 'no more is known'}); check the size of its scans"
    return str(error) if isinstance(error, _MISTAKES) else f"{type(error).__name__}: {error}"


def raise_failure(failed: Mapping[str, Exception], num_subjects: int) -> NoReturn:
    """Ends a run in which these subjects failed.

    Raises:
        InputError: the sentence about them; but if there was a fault of ours among them, that fault.
    """
    first, error = next(iter(failed.items()))
    because = sentence(error)
    if len(failed) > 1:
        because = f"{some_of(failed)}; the first of them, {first}, because: {because}"
    complaint = InputError(f"{len(failed)} of {counted(num_subjects, 'subject')} could not be done: {because}")
    fault = next((each for each in failed.values() if not isinstance(each, _MISTAKES)), None)
    if fault is not None:
        log.error("%s", complaint)
        raise fault
    raise complaint
