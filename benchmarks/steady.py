"""Time and memory of a training step after 10², 10³ and 10⁴ iterations of the real loop on real files.

    python benchmarks/steady.py [--iterations 10000]

Windows are small, so that what a step costs besides arithmetic shows. Subjects are simulated, prepared once, cached and
drawn from as in any training; checkpoints and summaries are written.
"""

import argparse
import contextlib
import io
import os
import resource
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CONFIG = """
[FLAIR]
path_to_search = {folder}
filename_contains = _FLAIR
spatial_window_size = (24, 24, 1)
pixdim = (3.0, 3.0, 4.0)
axcodes = (L, P, S)
[T1]
path_to_search = {folder}
filename_contains = _T1
spatial_window_size = (24, 24, 1)
pixdim = (3.0, 3.0, 4.0)
axcodes = (L, P, S)
[lesion]
path_to_search = {folder}
filename_contains = _lesion
spatial_window_size = (24, 24, 1)
pixdim = (3.0, 3.0, 4.0)
axcodes = (L, P, S)
interp_order = 0
[SYSTEM]
model_dir = {folder}/model
num_threads = 1
[NETWORK]
name = hemis
batch_size = 1
whitening = True
[TRAINING]
lr = 1e-4
loss_type = DicePlusXEnt
max_iter = {iterations}
save_every_n = 1000
tensorboard_every_n = 20
[SEGMENTATION]
image = FLAIR, T1
label = lesion
num_classes = 2
[PIMMS]
cache = {folder}/cache
frontend = highres_1x1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10_000)
    arguments = parser.parse_args()

    from niftynet_compat import load_config
    from pimms_tf.actions.stopping import StopSignals
    from pimms_tf.actions.train import train
    from pimms_tf.commands.demo import write_subjects
    from pimms_tf.study import training_study

    seconds, memory = [], {}

    def report(done) -> None:
        seconds.append(done.seconds)
        if done.iteration in (100, 1000, 10_000, arguments.iterations):
            memory[done.iteration] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        write_subjects(folder, 4, 3.0, 0)
        path = folder / "steady.ini"
        path.write_text(CONFIG.format(folder=folder, iterations=arguments.iterations), encoding="utf-8")
        train(training_study(load_config(path, action="train")), report, StopSignals())
    first = None
    for end in (100, 1000, 10_000):
        if end > len(seconds):
            break
        # The last half of the iterations up to there, so that the first, compiled one, does not count.
        median = statistics.median(seconds[end // 2 : end])
        first = first or median
        ratio, peak = median / first, memory[end]
        print(f"iteration {end:6d}: {median * 1e3:7.2f} ms, {ratio:.3f} times the first; peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
