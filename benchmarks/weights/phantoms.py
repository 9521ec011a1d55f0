"""The quick phantoms of `pimms-tf demo`, other ones than it shows → a pool.

python benchmarks/weights/phantoms.py POOL/phantom --count 24
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from pool import MODALITIES, write_slices
from real import subject

from pimms_tf.simulation.phantom import draw_phantom, write_phantom

SEED = 77  # the demonstration draws from 0
SPACINGS_MM = ((1.5, 1.5, 3.0), (1.5, 1.5, 3.0), (1.0, 1.0, 5.0), (1.0, 1.0, 2.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--count", type=int, default=24)
    a = parser.parse_args()
    for number in range(a.count):
        path = a.pool / f"{number:04d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng((SEED, number))
        load_ml = (0.0, 0.0) if number % 8 == 7 else (1.0, 40.0)
        phantom = draw_phantom(rng, SPACINGS_MM[number % len(SPACINGS_MM)], (-14.0, 58.0), load_ml)
        with tempfile.TemporaryDirectory() as folder:
            files = write_phantom(Path(folder), "phantom", phantom)
            for file, name in zip(files, (*MODALITIES, "lesion"), strict=True):
                file.rename(Path(folder) / f"{name}.nii.gz")
            write_slices(path, subject(Path(folder)))
        print(path.stem, flush=True)


if __name__ == "__main__":
    main()
