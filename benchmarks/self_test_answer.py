"""Records what the network of the self-test answers: `python benchmarks/self_test_answer.py` writes `answer.json`.

Run it only when the published network itself changes, on a processor that the tests pass on.
"""

import json
from pathlib import Path

import pimms_tf.check
from pimms_tf.check.self_test import ANSWER, formula_network, formula_scans
from pimms_tf.files import write_text

if __name__ == "__main__":
    logits = [
        [[[float(f"{value:.9g}") for value in row] for row in y] for y in x] for x in formula_network()(formula_scans())
    ]
    path = Path(pimms_tf.check.__file__).with_name(ANSWER)
    print(write_text(path, json.dumps({"logits": logits}) + "\n"))
