"""`python -m pimms_tf`, the same as the console script `pimms-tf`."""

import sys

from pimms_tf.cli import main

sys.exit(main())
