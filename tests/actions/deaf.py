"""A process that computes for hours outside Python, where no handler of a signal is run; see test_stopping.

With the word "later" it does so after an iteration, as a worker that waits for another.
"""

import hashlib
import sys
from contextlib import suppress

from pimms_tf.actions import stopping

stopping._GRACE_S = stopping._LOST_S = 0.1

with stopping.StopSignals() as stop:
    if "later" in sys.argv:
        stop.waits_for_others = True
        stop.begun()
    while True:
        # The signal may come before the computation has begun.
        with suppress(KeyboardInterrupt):
            print("computing", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
