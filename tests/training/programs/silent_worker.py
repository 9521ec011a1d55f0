"""Watches a worker that never answers: `python silent_worker.py ADDRESS` is ended by the watch, with its name."""

import logging
import sys
import threading

from pimms_tf.cluster import Cluster
from pimms_tf.training import devices

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    cluster = Cluster(("here:1", sys.argv[1]), 0)
    threading.Thread(target=devices._watch, args=(cluster, 0.5, threading.Event())).start()
    threading.Event().wait(30)
