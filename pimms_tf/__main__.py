"""`python -m pimms_tf`, the same as the console script `pimms-tf`."""

import sys

from pimms_tf.commands.cli import main

sys.exit(main())
