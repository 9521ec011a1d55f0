"""An export answers like its model, for any number, size and order of scans, and needs nothing but TensorFlow."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.inference.preparation import Preparation, ScanSlot, read_preparation
from pimms_tf.models import build_classifier, build_model
from pimms_tf.serving import export_saved_model, exported_preparation, verify_export

SMALL = {"classifier_blocks": 1, "classifier_features": (4, 8, 8), "frontend": "paper_5x5"}
RECORD = Preparation(
    variant="soft",
    choices=SMALL | {"spatial_rank": 2},
    modalities=("FLAIR", "T1", "T2"),
    num_classes=2,
    class_names=("background", "lesion"),
    axcodes=("L", "P", "S"),
    pixdim_mm=(1.0, 1.0, 1.0),
    foreground="otsu_plus",
    scans=tuple(ScanSlot(name, place, 3) for place, name in enumerate(("FLAIR", "T1", "T2"))),
    window=(100, 100, 1),
    border=(17, 17, 0),
)


def small_model(variant="soft", **choices):
    keras.utils.set_random_seed(3)
    return build_model(variant, 3, 2, **SMALL | choices)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export_saved_model(model, tmp_path_factory.mktemp("export"), preparation=RECORD)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported)).signatures


def random_scans(*shape):
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def serve(signatures, scans, name="serving_default", **others):
    answer = signatures[name](scans=tf.constant(scans), **{k: tf.constant(v) for k, v in others.items()})
    return {key: value.numpy() for key, value in answer.items()}


def tolerance_of(model, rounding):
    """How far probabilities may be from the same, computed in another graph."""
    scans = random_scans(2, *(12,) * model.spatial_rank, 3)
    tolerance = rounding(lambda scans: keras.ops.softmax(model(scans).segmentation_logits), scans)
    assert tolerance < 1e-4
    return tolerance


def test_what_was_the_name_in_the_first_release_is_still_answered(loaded):
    answer = serve(loaded, random_scans(1, 2, 9, 9))
    np.testing.assert_array_equal(answer["segmentation"], answer["probabilities"])


def test_the_export_answers_like_the_model_for_one_to_five_scans_of_several_sizes(exported, model, rounding):
    report = verify_export(exported, model)
    assert report.path == exported
    assert report.num_comparisons == 4 * 3 * 4  # numbers of scans, sizes, two outputs in two orders
    assert report.largest_difference <= tolerance_of(model, rounding)
    assert "Conv2D" in report.operations


@pytest.mark.parametrize(
    ("variant", "choices"),
    [
        ("hard", {}),
        ("soft", {"spatial_rank": 3}),
        ("online", {"preset": "niftynet2018", "frontend": "highres_1x1"}),
        ("soft", {"frontend": "paper"}),
    ],
)
def test_every_kind_of_model_exports(tmp_path, variant, choices, rounding):
    model = small_model(variant, **choices)
    export_saved_model(model, tmp_path)
    report = verify_export(tmp_path, model, num_scans=(1, 4), sizes=[(13, 10, 9)[: model.spatial_rank]])
    assert report.largest_difference <= tolerance_of(model, rounding)


@pytest.mark.parametrize("variant", ["hemis", "hard", "soft", "online"])
def test_no_order_of_the_scans_changes_a_bit_of_what_is_served(tmp_path, variant):
    signatures = tf.saved_model.load(str(export_saved_model(small_model(variant), tmp_path))).signatures
    rng = np.random.default_rng(6)
    for num_scans in range(2, 7):
        scans = random_scans(2, num_scans, 13, 12)
        scans[:, -1] = scans[:, 0]  # the same scan twice
        scans[1, 1] = 0
        labels = rng.integers(0, 3, (2, num_scans)).astype(np.int32)

        def served(order, scans=scans, labels=labels):
            others = {"modality": labels[:, order]} if variant == "hemis" else {}
            return serve(signatures, scans[:, order], **others)

        labels[:, -1] = labels[:, 0]
        expected = served(range(num_scans))
        for order in (rng.permutation(num_scans) for _ in range(4)):
            found = served(order)
            np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
            np.testing.assert_array_equal(found["modality_scores"], expected["modality_scores"][:, order])


def test_a_network_that_makes_much_of_rounding_exports_all_the_same(tmp_path):
    model = small_model("soft", frontend="paper")
    model.frontend.conv_2.norm.gamma.assign([50.0, 50.0])
    path = export_saved_model(model, tmp_path)
    assert verify_export(path, model, num_scans=(1, 3), sizes=[(24, 24)]).largest_difference <= 1e-5
    model.frontend.conv_2.norm.gamma.assign([50.1, 50.0])
    with pytest.raises(RuntimeError, match="probabilities of .* is off by"):
        verify_export(path, model, num_scans=(1,), sizes=[(24, 24)])


def test_a_model_of_mixed_precision_answers_in_float32_as_it_does_in_memory(tmp_path, bfloat16):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy("float32")
    path = export_saved_model(model, tmp_path)
    verify_export(path, model, num_scans=(2,), sizes=[(9, 9)])
    answer = serve(tf.saved_model.load(str(path)).signatures, random_scans(1, 2, 9, 9))
    assert {value.dtype for value in answer.values()} == {np.dtype(np.float32)}


def test_outputs_are_named_and_sum_to_one(loaded):
    answer = serve(loaded, random_scans(2, 4, 11, 14))
    assert answer["probabilities"].shape == (2, 11, 14, 2)
    assert answer["modality_scores"].shape == (2, 4, 3)
    for value in answer.values():
        np.testing.assert_allclose(value.sum(axis=-1), 1, rtol=1e-6)


def test_scans_shows_up_as_the_input_and_every_axis_is_free(loaded):
    _, inputs = loaded["serving_default"].structured_input_signature
    assert inputs == {"scans": tf.TensorSpec((None, None, None, None), tf.float32, name="scans")}


def test_height_is_the_first_axis_of_the_model_and_width_the_second(loaded, model, rounding):
    scans = random_scans(1, 2, 10, 15)
    logits = model(np.einsum("bnxy->bxyn", scans)).segmentation_logits
    found, tolerance = serve(loaded, scans)["probabilities"], tolerance_of(model, rounding)
    np.testing.assert_allclose(found, keras.ops.softmax(logits), rtol=0, atol=tolerance)


def test_a_blank_scan_counts_for_nothing(loaded):
    scans = random_scans(1, 2, 12, 12)
    padded = np.concatenate([scans[:, :1], np.zeros_like(scans), scans[:, 1:]], axis=1)
    alone, among_blanks = serve(loaded, scans), serve(loaded, padded)
    np.testing.assert_array_equal(among_blanks["probabilities"], alone["probabilities"])
    np.testing.assert_array_equal(among_blanks["modality_scores"][:, [0, 3]], alone["modality_scores"])
    assert not among_blanks["modality_scores"][:, 1:3].any()


def test_nothing_but_blank_scans_gives_a_finite_answer(loaded):
    answer = serve(loaded, np.zeros((1, 2, 8, 8), np.float32))
    assert np.isfinite(answer["probabilities"]).all()
    assert not answer["modality_scores"].any()


def test_scores_from_one_endpoint_fed_to_another_give_the_default_answer(loaded, model, rounding):
    scans = random_scans(2, 3, 12, 13)
    expected = serve(loaded, scans)
    scores = serve(loaded, scans, "classify_windows")["modality_scores"]
    np.testing.assert_array_equal(scores, expected["modality_scores"])
    answer = serve(loaded, scans, "segment_with_scores", scores=scores)
    tolerance = tolerance_of(model, rounding)
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], rtol=0, atol=tolerance)


def test_hemis_takes_labels_and_leaves_out_a_scan_labelled_minus_one(tmp_path, rounding):
    model = small_model("hemis")
    path = export_saved_model(model, tmp_path)
    assert verify_export(tmp_path, model, num_scans=(1, 4)).largest_difference <= tolerance_of(model, rounding)
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {"serving_default", "segment_with_scores"}
    scans = random_scans(1, 3, 10, 10)
    answer = serve(signatures, scans, modality=np.array([[2, -1, 0]], np.int32))
    np.testing.assert_array_equal(answer["modality_scores"], [[[0, 0, 1], [0, 0, 0], [1, 0, 0]]])
    without = serve(signatures, scans[:, [2, 0]], modality=np.array([[0, 2]], np.int32))
    np.testing.assert_array_equal(answer["probabilities"], without["probabilities"])


def test_versions_start_at_one(exported):
    assert exported.name == "1"


def test_without_a_version_the_next_number_is_taken_and_the_rest_is_left(tmp_path, model):
    for name in ("2", "9", "notes"):
        (tmp_path / name).mkdir()
    assert export_saved_model(model, tmp_path) == tmp_path / "10"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["10", "2", "9", "notes"]


def earlier_export(folder, **told):
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    (folder / "preprocessing.json").write_text(json.dumps(told))


def test_the_newest_version_is_the_one_read_from_the_parent(tmp_path):
    for version in ("9", "10"):
        earlier_export(tmp_path / version, foreground_type=version)
    assert exported_preparation(tmp_path) == Preparation(foreground="10", choices={"spatial_rank": 2})


def test_the_record_of_preparation_lies_beside_the_model_and_reads_back_equal(exported):
    assert exported_preparation(exported) == read_preparation(exported) == RECORD
    written = json.loads((exported / "preparation.json").read_text(encoding="utf-8"))
    assert written["modalities"] == ["FLAIR", "T1", "T2"]
    assert written["served_scope"] == "slice"


def test_the_record_says_what_the_endpoints_classify_whatever_it_said_before(tmp_path, model):
    record = replace(RECORD, served_scope="scan")
    assert exported_preparation(export_saved_model(model, tmp_path, preparation=record)) == RECORD


def test_without_a_record_the_export_says_what_the_model_shows(tmp_path, model):
    record = exported_preparation(export_saved_model(model, tmp_path))
    assert (record.variant, record.num_classes, record.spatial_rank, record.modalities) == ("unknown", 2, 2, ())


def test_what_exports_of_earlier_releases_say_is_still_read(tmp_path):
    earlier_export(
        tmp_path / "1",
        modalities=["empty", "T1"],
        class_names=[],
        axcodes=["L", "P", "S"],
        pixdim_mm=[1.0, 1.0, 3.0],
        whitening=False,
        foreground_type="mean_plus",
        foreground_fusion="or",
        landmarks=[[], [0.0, 50.0, 100.0]],
        norm_type="quartile",
        cutoff=[0.02, 0.98],
        window=[100, 100, 1],
        border=[],
        spatial_rank=2,
    )
    assert exported_preparation(tmp_path) == Preparation(
        choices={"spatial_rank": 2},
        modalities=("empty", "T1"),
        axcodes=("L", "P", "S"),
        pixdim_mm=(1.0, 1.0, 3.0),
        whitening=False,
        foreground="mean_plus",
        fusion="or",
        scans=(ScanSlot("T1", 1, 3, (0.0, 50.0, 100.0)),),
        norm_type="quartile",
        cutoff=(0.02, 0.98),
        window=(100, 100, 1),
    )
    (tmp_path / "1" / "preprocessing.json").write_text("[1]")
    with pytest.raises(InputError, match="preprocessing.json is damaged"):
        exported_preparation(tmp_path)


@pytest.mark.parametrize("size", ["8k", "100k", "400k"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(model, small_disk, size):
    folder = small_disk(size) / "export"
    with pytest.raises(InputError) as complaint:
        export_saved_model(model, folder)
    assert str(complaint.value) == (
        f"version 1 cannot be written into {folder} (No space left on device): free space, or choose another folder"
    )
    assert not list(folder.iterdir())


def test_an_export_is_not_there_before_its_proof_and_not_after_a_failed_one(model, tmp_path):
    def refuse(folder):
        assert (folder / "saved_model.pb").is_file()
        assert not (tmp_path / "1").exists()
        raise RuntimeError("differs")

    with pytest.raises(RuntimeError, match="differs"):
        export_saved_model(model, tmp_path, prove=refuse)
    assert not list(tmp_path.iterdir())


def test_a_version_that_exists_is_not_overwritten(exported, model):
    before = (exported / "saved_model.pb").stat().st_mtime_ns
    message = re.escape(f"version 1 is already in {exported.parent}") + ".* give version 2"
    with pytest.raises(InputError, match=message):
        export_saved_model(model, exported.parent, version=1)
    assert (exported / "saved_model.pb").stat().st_mtime_ns == before


def test_a_version_below_one_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="version 0 of the export .* use 1 or above"):
        export_saved_model(model, tmp_path, version=0)


def test_the_record_must_be_of_as_many_modalities_and_classes_as_the_model(tmp_path, model):
    with pytest.raises(InputError, match="record of preparation is of 2 modalities, but the model has 3"):
        export_saved_model(model, tmp_path, preparation=Preparation(modalities=("T1", "T2"), num_classes=2))
    with pytest.raises(InputError, match="is of 1 segmentation classes, but the model has 2"):
        export_saved_model(model, tmp_path, preparation=replace(RECORD, num_classes=1, class_names=()))


def test_a_model_that_only_classifies_is_refused(tmp_path):
    classifier = build_classifier(3, classifier_blocks=1, classifier_features=(4, 8, 8))
    with pytest.raises(InputError, match="only classifies scans; export one that segments"):
        export_saved_model(classifier, tmp_path)


def test_a_folder_without_an_export_is_named(tmp_path, model):
    with pytest.raises(InputError, match=re.escape(f"no exported model in {tmp_path}")):
        verify_export(tmp_path, model)
    with pytest.raises(InputError, match=re.escape(f"no exported model in {tmp_path}")):
        exported_preparation(tmp_path)


def test_verify_notices_that_the_model_has_moved_on(exported, model):
    weight = model.backends[0].conv_1.conv.kernel
    kept = weight.numpy()
    try:
        weight.assign(1.5 * kept)
        with pytest.raises(RuntimeError, match="probabilities of .* is off by .* for 1 scans of .*; allowed is 1e-05"):
            verify_export(exported, model)
    finally:
        weight.assign(kept)


def test_verify_refuses_a_graph_that_calls_python(tmp_path, model):
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, None), tf.float32, name="scans")])
    def in_python(scans):
        return {"probabilities": tf.numpy_function(lambda array: array, [scans], tf.float32)}

    module = tf.Module()
    module.serving_default = in_python
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": in_python})
    with pytest.raises(RuntimeError, match="operations a server does not have: PyFunc"):
        verify_export(tmp_path, model)


READER = """
import sys
sys.modules["keras"] = None  # TensorFlow imports Keras where it is installed; here code that needs it fails
import numpy as np
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
for number in range(int(sys.argv[3])):
    case = np.load(f"{sys.argv[2]}/{number}.npz")
    answer = signatures["serving_default"](scans=tf.constant(case["scans"]))
    for name in ("probabilities", "modality_scores"):
        np.testing.assert_allclose(answer[name].numpy(), case[name], rtol=0, atol=float(sys.argv[4]))
assert not [name for name in sys.modules if name.split(".")[0] == "pimms_tf" or name.startswith("keras.")]
print("equal")
"""


@pytest.mark.slow
def test_a_process_with_tensorflow_alone_gives_the_same_answers(tmp_path, rounding):
    keras.utils.set_random_seed(1)
    model = build_model("online", 3, 2)
    path = export_saved_model(model, tmp_path / "export")
    shapes = [(1, 1, 24, 24), (2, 2, 31, 18), (1, 3, 40, 33), (1, 5, 100, 100)]
    for number, shape in enumerate(shapes):
        scans = random_scans(*shape)
        windows = np.einsum("bnxy->bxyn", scans)
        np.savez(
            tmp_path / f"{number}.npz",
            scans=scans,
            probabilities=keras.ops.softmax(model(windows).segmentation_logits),
            modality_scores=model.classify(windows),
        )
    arguments = [sys.executable, "-c", READER, str(path), str(tmp_path), str(len(shapes))]
    arguments.append(str(tolerance_of(model, rounding)))
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
