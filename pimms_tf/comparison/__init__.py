"""The paper's comparison, from simulated hospitals: four networks, three holdouts, every subset of T1, T2 and FLAIR."""

from pimms_tf.comparison.plan import SCALES, Plan, Scale, Stage, plan_of
from pimms_tf.comparison.stages import run_stages
from pimms_tf.comparison.summary import read_comparison, write_comparison

__all__ = [
    "SCALES",
    "Plan",
    "Scale",
    "Stage",
    "plan_of",
    "read_comparison",
    "run_stages",
    "write_comparison",
]
