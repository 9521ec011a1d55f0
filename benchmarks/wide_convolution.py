"""Forward and backward pass of the 21×21 convolution by each of its methods.

python benchmarks/wide_convolution.py [--batch 8] [--window 100] [--direct]
"""

import argparse
import functools
from collections.abc import Callable

import numpy as np
from taking_turns import take_turns


def both_passes(method: str, batch: int, size: int) -> Callable[[], float]:
    import tensorflow as tf

    from pimms_tf.models.wide import wide_convolution

    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(batch, size, size, 16)).astype(np.float32))
    kernel = tf.constant(rng.normal(size=(21, 21, 16, 2)).astype(np.float32))

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = wide_convolution(x, kernel, method)
        return tape.gradient(y, [x, kernel], output_gradients=y)

    return lambda: float(compute()[1][0, 0, 0, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--direct", action="store_true", help="the direct convolution too, which takes seconds")
    arguments = parser.parse_args()
    methods = ("fft", "rows", *(["direct"] if arguments.direct else []))
    contestants = {
        method: functools.partial(both_passes, method, arguments.batch, arguments.window) for method in methods
    }
    timings = take_turns(contestants, arguments.rounds)
    for method, timing in timings.items():
        print(f"{method:8s}{timing.median * 1e3:9.1f} ms{timing.median / timings['fft'].median:8.2f} times fft")


if __name__ == "__main__":
    main()
