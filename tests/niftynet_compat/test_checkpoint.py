"""Names and arrays of released checkpoints."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from niftynet_compat import ConfigError
from niftynet_compat.runs.checkpoint import import_tf1, read_tf1
from niftynet_compat.runs.checkpoint_names import GRAPHS, Graph, auxiliary_kind, local_step_name, our_path, tf1_name

GOLDENS = Path(__file__).parents[1] / "goldens"
GRAPH_OF_LIST = {
    "hemis_offline": "hemis",
    "classifier_offline_n9": "modality_classifier",
    "online_n10": "pimms_online",
}
# A network of one layer is enough for the rules of reading.
STEM, HEAD, BIAS = "ResNet/conv/conv_/w", "ResNet/fc/fc_/w", "ResNet/fc/fc_/b"
NORM = "ResNet/batch_norm"
HELPER = f"{NORM}/{NORM}/moving_mean"
EXPECTED = {
    "pimms/classifier/stem/conv/kernel": (3, 3, 1, 2),
    "pimms/classifier/head/kernel": (1, 3),
    "pimms/classifier/head/bias": (3,),
    "pimms/classifier/norm/gamma": (2,),
    "pimms/classifier/norm/moving_mean": (2,),
    "pimms/classifier/norm/unseen": (),
}
SLOPES = {"frontend/conv_1/prelu/alpha": (1, 1, 4), "frontend/conv_2/conv/kernel": (1, 1, 4, 2)}


def array(*shape, start=0.0):
    return (start + np.arange(np.prod(shape, dtype=int), dtype=np.float32)).reshape(shape)


@pytest.fixture
def stored():
    return {
        STEM: array(3, 3, 1, 2),
        HEAD: array(1, 3, start=50),
        BIAS: array(3, start=60),
        f"{NORM}/gamma": array(2, start=70),
        f"{NORM}/moving_mean": array(2, start=80),
        f"{HELPER}/biased": array(2, start=90),
        f"{HELPER}/local_step": np.float32(3),
    }


@pytest.fixture
def write(tmp_path):
    def write(arrays, name="model.ckpt-7"):
        prefix = tmp_path / name
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(arrays),
            shape_and_slices=[""] * len(arrays),
            tensors=[np.asarray(value) for value in arrays.values()],
        )
        return prefix

    return write


def listed():
    with open(GOLDENS / "variable_paths" / "tf1_variables.csv", encoding="utf-8", newline="") as file:
        return [(GRAPH_OF_LIST[row["graph"]], row["variable"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("network", GRAPHS)
def test_every_variable_of_the_released_graph_has_one_path_which_leads_back_to_it(network):
    names = [name for graph, name in listed() if graph == network]
    paths = [our_path(name, network) for name in names]
    assert None not in paths
    assert len(set(paths)) == len(names) > 40
    assert [tf1_name(path, network) for path in paths] == names
    assert [tf1_name(f"pimms/{path}", network) for path in paths] == names


@pytest.mark.parametrize("network", GRAPHS)
def test_no_weight_or_statistic_of_the_released_graph_passes_for_something_else(network):
    assert {auxiliary_kind(name, GRAPHS[network]) for graph, name in listed() if graph == network} == {None}


@given(st.integers(0, 30), st.integers(1, 4), st.integers(1, 40), st.sampled_from(list(GRAPHS)))
def test_paths_of_any_number_of_modalities_resolutions_and_blocks_lead_there_and_back(m, r, k, network):
    paths = (
        f"backend_{m}/conv_2/norm/beta",
        f"classifier/resolution_{r}_block_{k}/expand/conv/kernel",
        f"classifier/resolution_{r}_block_0/shortcut/conv/kernel",
    )
    names = [tf1_name(path, network) for path in paths]
    known = [name for name in names if name is not None]
    assert len(set(known)) == len(known) >= 1
    assert [our_path(name, network) for name in names if name] == [p for p, n in zip(paths, names, strict=True) if n]


@pytest.mark.parametrize(
    ("path", "graph", "name"),
    [
        ("backend_2/conv_1/conv/kernel", "hemis", "HeMIS/HeMISBackendBlock_2/backend_conv_1_bn_relu/conv_/w"),
        ("frontend/conv_1/prelu/alpha", "hemis", "HeMIS/HighRes3DNet/conv_1_bn_prelu/prelu_acti_/alpha"),
        (
            "classifier/resolution_1_block_0/norm/beta",
            "modality_classifier",
            "ResNet/downres/bottleneck/batch_norm/beta",
        ),
        (
            "classifier/resolution_3_block_8/reduce/norm/gamma",
            "pimms_online",
            "HeMIS/modality_classifier/ResNet/downres_2/bottleneck_8/conv_bn_relu/bn_/BatchNorm/gamma",
        ),
        ("classifier/head_norm/moving_mean", "modality_classifier", "ResNet/fc_bn/bn_/moving_mean"),
        # The released classifier with `with_bn=True`, and NiftyNet's own.
        (
            "classifier/resolution_2_block_0/shortcut/norm/beta",
            Graph("modality_classifier", False, "ResNet", "BatchNorm/", extra_bn=True, head="fc_bn/fc_"),
            "ResNet/downres_1/bottleneck/conv_bn_1/bn_/BatchNorm/beta",
        ),
        (
            "classifier/stem/conv/kernel",
            Graph("modality_classifier", False, "ResNet", "BatchNorm/", extra_bn=True, head="fc_bn/fc_"),
            "ResNet/conv_bn/conv_/w",
        ),
        ("classifier/head/bias", Graph("modality_classifier", False, "ResNet", head="fc"), "ResNet/fc/b"),
    ],
)
def test_layers_are_called_as_the_released_code_calls_them(path, graph, name):
    assert tf1_name(path, graph) == name
    assert our_path(name, graph) == path


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("HeMIS/HeMISBackendBlock_00/backend_conv_1_bn_relu/conv_/w", "hemis"),
        ("HeMIS/HeMISBackendBlock_0/backend_conv_3_bn_relu/conv_/w", "hemis"),
        ("ResNet/conv/conv_/w", "hemis"),
        ("ResNet/downres_0/bottleneck/batch_norm/beta", "modality_classifier"),
        ("ResNet/downres/bottleneck_0/conv_bn_relu/conv_/w", "modality_classifier"),
        ("ResNet/downres/bottleneck/batch_norm/BatchNorm/beta", "modality_classifier"),
        ("HeMIS/modality_classifier/ResNet/batch_norm/beta", "pimms_online"),
    ],
)
def test_other_names_have_no_path(name, network):
    assert our_path(name, network) is None


def test_paths_that_the_released_network_has_not_have_no_name():
    assert tf1_name("backend_0/conv_1/conv/bias", "hemis") is None
    assert tf1_name("classifier/head/kernel", "hemis") is None
    assert tf1_name("backend_0/conv_1/norm/unseen", "hemis") is None


def test_the_count_of_updates_is_found_below_the_doubled_scope():
    path = "pimms/backend_0/conv_1/norm/unseen"
    layer = "HeMIS/HeMISBackendBlock_0/backend_conv_1_bn_relu/bn_"
    assert local_step_name(path, "hemis") == f"{layer}/{layer}/moving_mean/local_step"
    assert local_step_name("pimms/backend_0/conv_1/norm/gamma", "hemis") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{HELPER}/biased", "zero-debias helper"),
        (f"{NORM}/{NORM}/moving_variance/local_step", "zero-debias helper"),
        (f"{STEM}/Adam", "Adam slot"),
        (f"{STEM}/Adam_1", "Adam slot"),
        (f"{STEM}/Momentum", "slot of another optimiser"),
        (f"{NORM}/gamma/RMSProp_1", "slot of another optimiser"),
        (f"{STEM}/ExponentialMovingAverage", "average of a weight"),
        ("ApplyGradients/beta1_power", "power of Adam's decay"),
        ("beta2_power", "power of Adam's decay"),
        ("global_step", "global step"),
        # Slots of nothing, and helpers in the wrong place.
        ("ResNet/convolution/w/Adam", None),
        (f"{NORM}/moving_mean/biased", None),
        (STEM, None),
    ],
)
def test_variables_that_are_not_of_the_network_are_told_apart_by_kind(name, kind):
    assert auxiliary_kind(name, GRAPHS["modality_classifier"]) == kind


def test_arrays_arrive_under_our_paths_as_they_are(write, stored):
    imported = import_tf1(write(stored), EXPECTED)
    assert list(imported) == list(EXPECTED)
    np.testing.assert_array_equal(imported["pimms/classifier/stem/conv/kernel"], stored[STEM])
    np.testing.assert_array_equal(imported["pimms/classifier/head/bias"], stored[BIAS])
    np.testing.assert_array_equal(imported["pimms/classifier/norm/moving_mean"], stored[f"{NORM}/moving_mean"])
    assert {value.dtype for value in imported.values()} == {np.dtype(np.float32)}


def test_paths_may_come_without_the_name_of_the_model(write, stored):
    imported = import_tf1(write(stored), {path.removeprefix("pimms/"): shape for path, shape in EXPECTED.items()})
    np.testing.assert_array_equal(imported["classifier/stem/conv/kernel"], stored[STEM])


@pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001"])
def test_a_checkpoint_may_be_named_by_any_of_its_files(write, stored, suffix):
    prefix = write(stored)
    assert read_tf1(f"{prefix}{suffix}").prefix == prefix


@pytest.mark.parametrize(("count", "unseen"), [(0.0, 1.0), (1.0, 0.9), (3.0, 0.729), (5e4, 0.0), (None, 0.0)])
def test_the_weight_of_the_starting_values_follows_from_the_count_of_updates(write, stored, count, unseen):
    if count is None:  # tf.contrib's normalisation counts nothing
        del stored[f"{HELPER}/local_step"]
    else:
        stored[f"{HELPER}/local_step"] = np.float32(count)
    value = import_tf1(write(stored), EXPECTED)["pimms/classifier/norm/unseen"]
    assert value.shape == ()
    assert value == pytest.approx(unseen, rel=1e-6, abs=1e-30)


def test_slopes_of_prelu_get_the_axes_that_share_them_and_nothing_else_is_reshaped(write):
    alpha, kernel = (
        "HeMIS/HighRes3DNet/conv_1_bn_prelu/prelu_acti_/alpha",
        "HeMIS/HighRes3DNet/conv_2_bn_softmax/conv_/w",
    )
    imported = import_tf1(write({alpha: array(4), kernel: array(1, 1, 4, 2)}), SLOPES)
    np.testing.assert_array_equal(imported["frontend/conv_1/prelu/alpha"], array(1, 1, 4))
    with pytest.raises(ConfigError, match=r"conv_2_bn_softmax/conv_/w has shape \(4, 2\), .* \(1, 1, 4, 2\)"):
        import_tf1(write({alpha: array(4), kernel: array(4, 2)}), SLOPES)
    with pytest.raises(ConfigError, match=r"alpha has shape \(5,\), frontend/conv_1/prelu/alpha .* \(1, 1, 4\)"):
        import_tf1(write({alpha: array(5), kernel: array(1, 1, 4, 2)}), SLOPES)


@pytest.mark.parametrize("updates", [1, 20, 500, 5000])
def test_moments_of_adam_come_along_when_they_are_asked_for(write, stored, updates):
    power = np.float32(1)
    for _ in range(updates + 1):  # as TensorFlow keeps it, for the update to come
        power *= np.float32(0.999)
    stored |= {
        f"{STEM}/Adam": array(3, 3, 1, 2, start=100),
        f"{STEM}/Adam_1": array(3, 3, 1, 2, start=200),
        "ApplyGradients/beta1_power": np.float32(0.9) ** (updates + 1),
        "ApplyGradients/beta2_power": power,
    }
    imported = import_tf1(write(stored), EXPECTED, optimizer=True)
    name = "optimizer/adam/pimms_classifier_stem_conv_kernel"
    np.testing.assert_array_equal(imported[f"{name}_momentum"], stored[f"{STEM}/Adam"])
    np.testing.assert_array_equal(imported[f"{name}_velocity"], stored[f"{STEM}/Adam_1"])
    assert imported["optimizer/adam/iteration"] == updates
    assert set(imported) - set(EXPECTED) == {f"{name}_momentum", f"{name}_velocity", "optimizer/adam/iteration"}
    assert set(import_tf1(write(stored), EXPECTED)) == set(EXPECTED)


def test_after_long_training_the_vanished_power_means_that_nothing_is_left_to_correct(write, stored):
    stored |= {f"{STEM}/Adam": array(3, 3, 1, 2), "ApplyGradients/beta2_power": np.float32(0)}
    updates = import_tf1(write(stored), EXPECTED, optimizer=True)["optimizer/adam/iteration"]
    assert np.float32(1 - 0.999 ** int(updates)) == 1


def test_without_moments_nothing_of_the_optimiser_is_returned(write, stored):
    assert set(import_tf1(write(stored), EXPECTED, optimizer=True)) == set(EXPECTED)


def test_the_iteration_is_the_global_step_or_else_the_number_in_the_name(write, stored):
    assert read_tf1(write(stored, "model.ckpt-12")).iteration == 12
    assert read_tf1(write(stored, "model.ckpt")).iteration is None
    assert read_tf1(write(stored | {"global_step": np.int64(40)}, "model.ckpt-12")).iteration == 40


def test_everything_is_sorted_and_counted(write, stored):
    stored |= {f"{STEM}/Adam": array(3, 3, 1, 2), "worker_0/beta1_power": np.float32(1), "ResNet/other": array(1)}
    released = read_tf1(write(stored))
    assert released.unknown == ("ResNet/other",)
    assert sorted(released.auxiliary.values()) == ["Adam slot", "power of Adam's decay"] + ["zero-debias helper"] * 2
    assert len(released.weights) + len(released.auxiliary) + len(released.unknown) == len(stored)


def message(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def test_what_is_missing_left_over_and_different_is_listed_from_both_sides(write, stored):
    del stored[HEAD]
    stored["ResNet/fc_2/fc_/w"] = array(7)
    stored[STEM] = array(3, 3, 1, 4)
    prefix = write(stored)
    text = message(lambda: import_tf1(prefix, EXPECTED))
    assert f"checkpoint {prefix} does not fit the model of modality_classifier" in text
    assert "not in it are: pimms/classifier/head/kernel (1, 3), there ResNet/fc/fc_/w" in text
    assert "only in it are: ResNet/fc_2/fc_/w (7,)" in text
    assert (
        "ResNet/conv/conv_/w has shape (3, 3, 1, 4), pimms/classifier/stem/conv/kernel of the model (3, 3, 1, 2)"
        in text
    )
    assert "\n" not in text


def test_a_moment_of_another_shape_is_refused(write, stored):
    stored[f"{STEM}/Adam"] = array(3)
    text = message(lambda: import_tf1(write(stored), EXPECTED, optimizer=True))
    assert f"{STEM}/Adam has shape (3,)" in text


def test_a_variable_of_our_model_that_no_released_network_has_is_refused(write, stored):
    text = message(lambda: import_tf1(write(stored), EXPECTED | {"pimms/classifier/head/scale": (3,)}))
    assert "not in it are: pimms/classifier/head/scale (3,)" in text


def test_one_stored_array_is_not_used_twice(write, stored):
    text = message(lambda: import_tf1(write(stored), EXPECTED | {"classifier/head/bias": (3,)}))
    assert "classifier/head/bias (3,)" in text


def test_long_lists_are_cut_and_counted(write, stored):
    stored |= {f"ResNet/other_{number}": array(1) for number in range(9)}
    assert "ResNet/other_2 (1,); and 6 more" in message(lambda: import_tf1(write(stored), EXPECTED))


@pytest.mark.parametrize("value", [np.full(3, np.nan, np.float32), np.zeros(3, np.float64), np.array([1, np.inf, 0])])
def test_weights_that_are_no_finite_float32_numbers_are_refused(write, stored, value):
    stored[BIAS] = value
    assert f"not finite float32 numbers are: {BIAS}" in message(lambda: import_tf1(write(stored), EXPECTED))


def test_a_checkpoint_of_another_network_is_refused_with_names_of_both(write, stored):
    text = message(lambda: import_tf1(write(stored), EXPECTED, network="hemis"))
    assert "is not of hemis but of modality_classifier" in text
    assert STEM in text
    assert "HeMIS/HeMISBackendBlock_0/backend_conv_1_bn_relu/conv_/w" in text


def test_an_original_checkpoint_of_another_program_is_refused():
    text = message(lambda: read_tf1(GOLDENS / "09_endtoend" / "model_models" / "model.ckpt-20"))
    assert "is of none of the released networks hemis, modality_classifier, pimms_online" in text
    assert "ToyNet/" in text


def test_an_unknown_network_gets_the_nearest_one(write, stored):
    assert "did you mean hemis?" in message(lambda: import_tf1(write(stored), EXPECTED, network="hemi"))


def test_a_name_without_files_is_refused_with_those_that_are_there(write, stored, tmp_path):
    assert f"there is no {tmp_path / 'model.ckpt-8'}.index" in message(lambda: read_tf1(tmp_path / "model.ckpt-8"))
    write(stored)
    assert "holds model.ckpt-7" in message(lambda: read_tf1(tmp_path / "model.ckpt-8"))
    assert "holds model.ckpt-7" in message(lambda: read_tf1(tmp_path))


def damaged(prefix, how):
    data, index = Path(f"{prefix}.data-00000-of-00001"), Path(f"{prefix}.index")
    content = data.read_bytes()
    if how == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif how == "one bit":
        data.write_bytes(content[:10] + bytes([content[10] ^ 4]) + content[11:])
    elif how == "no data":
        data.unlink()
    elif how == "index":
        index.write_bytes(index.read_bytes()[:-20])
    else:
        index.unlink()
        prefix.write_text("no checkpoint", encoding="utf-8")


@pytest.mark.parametrize("how", ["truncated", "one bit", "no data", "index", "text"])
def test_a_damaged_checkpoint_is_refused(write, stored, how):
    prefix = write(stored)
    damaged(prefix, how)
    text = message(lambda: import_tf1(prefix, EXPECTED))
    assert f"checkpoint {prefix} cannot be read" in text
    assert "copy them again" in text
