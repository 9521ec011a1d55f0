"""Functions of the iteration number, which starts at 1 and goes on after a restart."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """Returns a schedule that is `value` at every iteration."""
    return lambda iteration: value


def exponential_decay(gamma: float, initial: float = 1.0) -> Schedule:
    """Returns initial · exp(-γ · iteration), the weight λ(i) of the modality loss.

    γ = 1e-4 gives 0.905 at iteration 1,000, 0.368 at 10,000 and 0.0743 at 26,000. γ = 0 is constant.
    Source: paper §2.4; niftynet/contrib/hemis_midl/hemis_app.py (`decay_constant`).
    """
    return lambda iteration: initial * math.exp(-gamma * iteration)
