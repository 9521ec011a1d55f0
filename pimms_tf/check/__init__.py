"""A dry run: what an action would find, what would stop it and what it would cost, before anything is written."""

from pimms_tf.check.dry_run import check_config
from pimms_tf.check.report import Finding, Level, Report, Table

__all__ = ["Finding", "Level", "Report", "Table", "check_config"]
