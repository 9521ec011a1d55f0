"""A process that computes for hours outside Python, where no handler of a signal is run; see test_stopping."""

import hashlib
from contextlib import suppress

from pimms_tf.actions import stopping

stopping._GRACE_S = 0.1

with stopping.StopSignals():
    while True:
        # The signal may come before the computation has begun.
        with suppress(KeyboardInterrupt):
            print("computing", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
