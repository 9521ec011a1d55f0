"""A trained segmenter and a classifier, trained and calibrated → the files of pimms_tf/weights.

python benchmarks/weights/pack.py SEGMENTER/average.npz CLASSIFIER/calibrated.npz pimms_tf/weights
"""

import argparse
import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from classifier import BLOCKS, FEATURES
from pool import MODALITIES
from segmenter import saved

from pimms_tf.files import replacing
from pimms_tf.inference import Preparation, ScanSlot
from pimms_tf.inference.network import build_network
from pimms_tf.inference.preparation import VolumeRange
from pimms_tf.presets import preset_choices

PREPARATION = Preparation(
    variant="hard",
    preset="paper",
    choices=preset_choices("hard", "paper")
    | {"attention_normalise": "sum", "classifier_features": FEATURES, "classifier_blocks": BLOCKS},
    modalities=MODALITIES,
    num_classes=2,
    class_names=("background", "lesion"),
    axcodes=("L", "P", "S"),
    pixdim_mm=(1.0, 1.0, 0.0),
    foreground="brain",
    blank_outside=True,
    scans=tuple(ScanSlot(name, number) for number, name in enumerate(MODALITIES)),
    window=(0, 0, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segmenter", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--smallest-lesion-ml", type=float, default=0.0)
    parser.add_argument("--least-score", type=float, default=0.0)
    parser.add_argument("--least-share", type=float, default=0.0)
    names = [field.name for field in fields(VolumeRange)]
    parser.add_argument("--volume-range", type=float, nargs=len(names), metavar=tuple(map(str.upper, names)))
    a = parser.parse_args()
    arrays = {}
    for path, is_classifier in ((a.segmenter, False), (a.classifier, True)):
        with np.load(path, allow_pickle=False) as found:
            arrays |= {name: found[name] for name in found.files if ("/classifier/" in name) == is_classifier}
    # A threshold other than a half is put into the last bias, so that taking the best class applies it too.
    shift = float(np.log(a.threshold / (1 - a.threshold)))
    last = next(name for name in arrays if name.endswith("frontend/conv_2/norm/beta"))
    arrays[last] = arrays[last] - np.array([0, shift], np.float32)
    preparation = replace(
        PREPARATION,
        smallest_lesion_ml=a.smallest_lesion_ml,
        least_score=a.least_score,
        least_share=a.least_share,
        volume_range=VolumeRange(*(a.volume_range or ())),
    )
    shapes = {v.path: tuple(v.shape) for v in build_network(preparation).variables}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise SystemExit(f"these are not the weights of the network: {set(shapes) ^ set(arrays)}")
    saved(a.out / "bundled.npz", {name: arrays[name].astype(np.float32) for name in sorted(arrays)})
    with replacing(a.out / "bundled.json") as path:
        path.write_text(preparation.to_json(), encoding="utf-8")
    names = ("bundled.json", "bundled.npz")
    lines = [f"{hashlib.sha256((a.out / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    with replacing(a.out / "bundled.sha256") as path:
        path.write_text("".join(lines), encoding="utf-8")
    print(json.dumps({name: (a.out / name).stat().st_size for name in ("bundled.json", "bundled.npz")}))


if __name__ == "__main__":
    main()
