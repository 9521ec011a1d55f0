"""The paper's comparison, from simulated hospitals: four networks, three holdouts, every subset of T1, T2 and FLAIR."""

from pimms_tf.comparison.keeping import keep
from pimms_tf.comparison.plan import Plan, Stage, plan_of
from pimms_tf.comparison.report import fill_page, report_text, with_parts, write_comparison
from pimms_tf.comparison.scales import SCALES, Scale
from pimms_tf.comparison.stages import run_stages
from pimms_tf.comparison.summary import Comparison, read_comparison

__all__ = [
    "SCALES",
    "Comparison",
    "Plan",
    "Scale",
    "Stage",
    "fill_page",
    "keep",
    "plan_of",
    "read_comparison",
    "report_text",
    "run_stages",
    "with_parts",
    "write_comparison",
]
