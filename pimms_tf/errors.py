"""The one exception for what a user can mend."""


class InputError(ValueError):
    """A mistake in what the user gave: one sentence that says what, where, why, and the remedy.

    The command line prints it and ends with exit code 2; any other exception is a fault of ours and keeps its
    traceback.
    """
