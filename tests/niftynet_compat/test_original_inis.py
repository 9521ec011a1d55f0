"""Files like those that the author of PIMMS used in 2018 and 2019, one or more of every family, with all their quirks.

The originals are not part of this repository; these are written after a description of them. Every one parses, every
key gets a verdict, and the values are those of the description.
"""

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from niftynet_compat import ConfigError, Outcome, Verdict, load_config, migrate_file, resolve_network, write_cleaned

DATA = "/raid/tom/Database_WMH"
HEMIS = "niftynet.contrib.hemis.hemis.HeMIS"
MIDL = "niftynet.contrib.hemis_midl.hemis.HeMIS"
RESNET = "niftynet.contrib.midl.resnet_plugin.ResNet"
HIGHRES = "niftynet.network.highres3dnet.HighRes3DNet"
MULTI = "niftynet.contrib.pimms.multitask_pimms_3D.MultitaskPIMMS3D"


def source(name, window, contains="", folder=DATA, unlike="", order="3", axcodes="(L, P, S)", **more):
    """One input section in the author's hand: uneven blanks, live and commented alternatives."""
    lines = [f"[{name}]", f"#path_to_search = /home/tom/{name}", f"path_to_search = {folder}"]
    lines += [f"filename_contains = {contains or name}", f"filename_not_contains ={unlike}"]
    lines += [f"spatial_window_size = {window}", f"interp_order = {order}", f"axcodes={axcodes}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in more.items()), ""])


def listed(name, csv, window, order, axcodes="(L, P, S)"):
    lines = [f"[{name}]", f"csv_file = {csv}", f"spatial_window_size = {window}", f"interp_order = {order}"]
    return "\n".join([*lines, f"axcodes={axcodes}", ""])


def values(name="modality_label", csv="./modality_labels.csv"):
    return f"[{name}]\ncsv_data_file = {csv}\nto_ohe = False\n"


def system(queue="queue_length = 40", split="", gpus="1", threads="30"):
    lines = ["############################## system configuration sections", "[SYSTEM]", 'cuda_devices = ""']
    lines += [f"num_threads = {threads}", f"num_gpus = {gpus}", "model_dir = /raid/tom/models/x", queue]
    return "\n".join([*lines, f"dataset_split_file = {split}" if split else "", ""])


def network(name, batch, decay="0", reg="L2", more="", padding="0"):
    lines = ["[NETWORK]", f"name = {name}", "activation_function = relu", f"batch_size = {batch}", f"decay = {decay}"]
    lines += [f"reg_type = {reg}", "# volume level preprocessing", f"volume_padding_size = {padding}"]
    lines += ["histogram_ref_file = /home/tom/databrain_std_hist_models_otsu.txt", "norm_type=percentile"]
    lines += ["cutoff = (0.01, 0.99)", "normalisation = False", "normalise_foreground_only=True"]
    lines += ["foreground_type = threshold_plus", "multimod_foreground_type = and", more]
    return "\n".join([*lines, ""])


def training(lr, loss="Dice", start="0", max_iter="10000", optimiser="adam", per_volume="1", more=""):
    lines = ["[TRAINING]", f"optimiser = {optimiser}" if optimiser else "", f"sample_per_volume = {per_volume}"]
    lines += [f"lr = {lr}", f"loss_type = {loss}", f"starting_iter = {start}", "save_every_n = 500"]
    lines += [f"max_iter = {max_iter}", "max_checkpoints = 100", "tensorboard_every_n = 20", more]
    return "\n".join([*lines, ""])


VALIDATION = "validation_every_n = 10\nvalidation_max_iter = 10\nexclude_fraction_for_validation = 0.1"


def inference(window, folder="./output/x", border="(5, 0, 5)", more="output_prob = False", order="0"):
    lines = ["[INFERENCE]", f"border = {border}", more, f"spatial_window_size = {window}", f"save_seg_dir = {folder}"]
    return "\n".join([*lines, f"output_interp_order = {order}", ""])


def segmentation(image, label, classes, prob="False", normalise="True", more=""):
    lines = ["[EVALUATION]", "", "[SEGMENTATION]", f"image = {image}", f"label = {label}", f"output_prob = {prob}"]
    return "\n".join([*lines, f"num_classes = {classes}", f"label_normalisation = {normalise}", more, ""])


def multitask(image, decay):
    lines = ["[EVALUATION]", "", "[MULTITASK]", f"image = {image}", "label = binlesion", "modalities = label"]
    lines += [
        "output_prob = False",
        "num_classes_seg = 2",
        "num_classes_classification = 4",
        f"decay_constant = {decay}",
    ]
    return "\n".join([*lines, "label_normalisation = True", ""])


def classification(label, classes, more=""):
    lines = ["[EVALUATION]", "", "[CLASSIFICATION]", "image = input" if label else "image = image"]
    lines += [f"label = {label}" if label else "", "output_prob = True", f"num_classes = {classes}"]
    return "\n".join([*lines, "label_normalisation = True", more, ""])


def hemis_2d(names, label, batch, lr, decay, optimiser="adam", start="0", folder=DATA, unlike="", inference_=None):
    win = "(100,100,1)"
    parts = [source(name, win, f"BFCorr_{name}", folder, unlike) for name in names.split(",")]
    parts += [source(label, win, "BinLesion", DATA, unlike, order="0"), system()]
    parts += [network(HEMIS, batch, decay), training(lr, optimiser=optimiser, start=start, more=VALIDATION)]
    parts += [inference_ or inference("(100, 100, 0)", "./output/modality_results/")]
    return "\n".join([*parts, segmentation(names, label, "2")])


def hemis_2d_inference(kind, folders, lr="0.0"):
    win = "(100,100,1)"
    parts = [source(name, win, f"BFCorr_{name}", folder) for name, folder in folders.items()]
    parts += [source("BinLesion", win, "BinLesion", order="0"), system(), network(HEMIS, "1", "1e-5")]
    more = "exclude_fraction_for_validation = 0.01"
    parts += [training(lr, start="26001", more=more).replace("every_n = 500", "every_n = 0").replace("n = 20", "n = 0")]
    parts += [inference("(100,100,1)", "./output/HeMIS_SOFT", order="3", more="output_prob = True")]
    return "\n".join([*parts, segmentation(", ".join(folders), "BinLesion", "2", prob="True")])


def midl(batch, decay, slots=9, net=MIDL, start="0", max_iter="10000", extra="", folder=DATA, commented=0, unlike=""):
    names = [f"input{number}" for number in range(slots)]
    parts = [source(name, "(100,100,1)", f"_{name}", folder, unlike) for name in names]
    dead = "".join(
        f";[input{n}]\n;path_to_search = {DATA}\n;interp_order = 3\n" for n in range(slots, slots + commented)
    )
    parts += [dead, source("binlesion", "(100,100,1)", "_BinLesion", order="0")]
    parts += [source("label", f"(1,1,{slots})", "_modalities", order="0"), system(threads="10")]
    parts += [network(net, batch, "1e-4", "l2"), training("3e-4", start=start, max_iter=max_iter, more=VALIDATION)]
    parts += [inference("(100,100,0)", more=f"output_prob = True\n{extra}"), multitask(",".join(names), decay)]
    return "\n".join(parts)


def classifier_2d(batch, lr, decay, more="", start="0", window="(100,100,1)"):
    parts = [listed("input", "/home/tom/csv/input.csv", "(100,100,1)", "3")]
    parts += [listed("label", "/home/tom/csv/label.csv", "(1,1,1)", "-1", "(A, R, S)")]
    parts += [system(split="/home/tom/csv/split.csv"), network(RESNET, batch, decay, more=more)]
    parts += [training(lr, "CrossEntropy", start, more=VALIDATION), inference(window, border="(5,5,5)")]
    return "\n".join([*parts, classification("label", "3")])


def three_d(
    names, label, net, batch, lr, classes, window="(80, 80, 80)", more="", keys="", loss="DicePlusXEnt", **rest
):
    folder = f"{DATA}/HGG, {DATA}/LGG"
    parts = [source(name, window, f"{name}_", folder) for name in names.split(",")]
    parts += [source(name, window, "Lesion", f"{DATA}/HGG, {DATA}/HGG", order="0") for name in label.split(",")]
    parts += [rest.get("unused", ""), system(queue="queue_length = 5", gpus=rest.get("gpus", "1"))]
    parts += [network(net, batch, rest.get("decay", "0.0"), more=f"num_threads = 10\n{more}")]
    parts += [training(lr, loss, rest.get("start", "0"), more=rest.get("train", VALIDATION))]
    parts += [inference(rest.get("iw", "(80,80,80)"), border="(0,0,0)", more=rest.get("infer", "output_prob = True"))]
    return "\n".join([*parts, segmentation(names, label, classes, normalise=rest.get("normalise", "False"), more=keys)])


def classifier_3d(batch, lr, classes, window, labelled=False, start="0"):
    label = values("label", "./labels.csv") if labelled else values()
    image = (
        source("image", window)
        if not labelled
        else "[image]\npath_to_search = /home/tom/b\nfilename_not_contains = seg\n"
    )
    image += f"spatial_window_size = {window}\n" if labelled else ""
    parts = [image, label, system(), network("resnet", batch, more="window_sampling = resize")]
    parts += [training(lr, "CrossEntropy", start, optimiser=""), inference("(0, 0, 3)", more="")]
    task = classification("", classes, "label = label" if labelled else "modality_label = modality_label")
    return "\n".join([*parts, task])


class Expected(NamedTuple):
    """What the description says of a file."""

    image: str
    label: str
    window: tuple
    batch: int
    lr: float
    network: str | None  # ours
    code: int  # of migrate
    stock: str  # why NiftyNet 0.6 stops, "" if it would run


class Case(NamedTuple):
    """A file of that name, and what is expected of it."""

    name: str
    text: str
    expected: Expected

    def __getattr__(self, name):
        return getattr(self.expected, name)


SLOTS = ",".join(f"input{number}" for number in range(9))
SLICE, CUBE = (100, 100, 1), (80, 80, 80)
WMH = "Flair,T1,T2"
FOLDERS = {"Flair": f"{DATA}_SOFT_FLAIR", "T1": f"{DATA}_SOFTv2_FLAIR", "T2": f"{DATA}_SOFT_FLAIR"}
SCALENET = "\n".join(
    [
        *(source(name, "(32, 32, 32)") for name in ("T1", "T2", "T1c", "Flair", "label")),
        system(queue=""),
        network("scalenet", "5", padding="21", more="queue_length = 5\nwhitening = True").replace(
            "tion = False", "tion = True"
        ),
        training("0.01", max_iter="6", more="rotation_angle = (-10.0, 10.0)\nscaling_percentage = (-10.0, 10.0)"),
        inference("(64, 64, 64)", border="(5, 5, 5)"),
        segmentation("T1,T2,T1c,Flair", "label", "5", normalise="False"),
    ]
)
FIRST_HEMIS = "\n".join(
    [
        *(source(name, "(32,32,32)") for name in ("Flair", "T1", "T1c", "T2", "label")),
        system(),
        network("hemis", "1", padding="(0,15,15)"),
        training("0.001", per_volume="24"),
        segmentation("Flair,T1,T1c,T2", "label", "2"),
    ]
)
NO_SCANS = midl("6", "1e-6", slots=5).replace("input", "input_")
NO_SCANS = NO_SCANS[: NO_SCANS.index("[EVALUATION]")] + segmentation("scans", "binlesion", "2")

FILES = {
    "scalenet_config": SCALENET,
    "HA_train_HeMIS": FIRST_HEMIS,
    "train_HeMIS_config": hemis_2d("Flair,T1,T1c,T2", "Lesion", "64", "1e-4", "1e-4", "nesterov"),
    "train_HeMIS_on_lesions_config": hemis_2d(WMH, "BinLesion", "32", "0.001", "1e-4"),
    "train_HeMIS_on_lesions_config_new": hemis_2d(WMH, "BinLesion", "64", "0.0003", "1e-5", folder=f"{DATA}_retrain"),
    "train_HeMIS_on_lesions_config_new_without_ADNI": hemis_2d(
        WMH, "BinLesion", "64", "0.0003", "1e-5", unlike="ADNI2017"
    ),
    **{
        f"inference_HeMIS_{kind}_ALL": hemis_2d_inference(
            kind, dict.fromkeys(WMH.split(","), f"{DATA}_retrain_{kind}v2_ALL")
        )
        for kind in ("HARD", "IDENTITY", "SOFT")
    },
    "inference_HeMIS_SOFT_FLAIR": hemis_2d_inference("SOFT", FOLDERS),
    "train_midl_config": midl("6", "1e-6"),
    "HM_train_midl_config_without_ADNI": midl(
        "6", "1e-6", slots=5, commented=4, unlike=" ADNI2017,111139_I_EODAE_SABRE"
    ),
    "MU_train_midl_config_without_ADNI": midl("5", "1e-3", max_iter="50000"),
    "train_midl_config_without_ADNI_v4_toynet": midl("32", "1e-3", start="-1"),
    "train_midl_config_without_ADNI_testing_v2": midl("4", "0.0", net="niftynet.contrib.hemis_midl.hemis_diff.HeMIS"),
    "inference_midl_config_without_ADNI_musnet": midl("6", "1e-6", extra="sample_per_volume = 1\ninference_iter=-1"),
    "inference_midl_config_without_ADNI_T2FLAIR": midl(
        "1", "1e-6", folder=f"{DATA}_size9_T2FLAIR", unlike="VaD7761", extra="sample_per_volume = 1"
    ),
    "MC_train_midl_config": NO_SCANS,
    "train_modality_classifier": classifier_2d("32", "0.001", "1e-4", window="(100,100,0)"),
    "train_modality_classifier_new": classifier_2d("32", "0.0003", "1e-5", more="with_bn = True", start="-1"),
    "train_3D_HeMIS": three_d(
        "Flair,T1,T1c,T2", "label", HIGHRES, "2", "0.001", "5", gpus="8", loss="Dice", iw="(100,100,0)"
    ),
    "train_HighRes3D_brats15": three_d(
        "Flair,T1,T1c,T2",
        "label",
        HIGHRES,
        "2",
        "0.001",
        "5",
        train=f"{VALIDATION}\ndo_whole_volume_validation = True",
        start="-1",
    ),
    "train_3D_HeMIS_parcellation_lesions": three_d(
        WMH,
        "label,Parcellation",
        MULTI,
        "2",
        "1e-2",
        "2",
        keys="modality_label = modality_label",
        unused=values(),
        normalise="True",
    ),
    "train_3D_HeMIS_single_task": three_d(
        WMH,
        "label",
        "singletask_pimms_3d",
        "2",
        "0.001",
        "2",
        unused=source("Parcellation", "(80,80,80)"),
        train=f"{VALIDATION}\nexclude_fraction_for_inference=0.8",
    ),
    "train_3D_HeMIS_single_task_BRATS": three_d(
        "T1,T1c,T2,Flair", "label", "singletask_pimms_3d", "1", "0.001", "4", iw="(100,100,100)"
    ),
    "train_3D_HeMIS_single_task_Lesions": three_d(
        WMH,
        "label",
        "singletask_pimms_3d",
        "2",
        "0.001",
        "2",
        more="window_sampling=weighted\nwhitening = True",
        keys="sampler = sampler",
        unused=source("sampler", "(80,80,80)", order="1"),
        start="-1",
        infer="output_prob=True\ninference_iter = 86800",
    ),
    "train_IDENTITY_3D_HeMIS_single_task_BRATS": three_d(
        "T1,T1c,T2,Flair", "label", "singletask_pimms_3d", "2", "0.1", "4", decay="1e-4", start="-1"
    ),
    "train_IDENTITY_3D_HeMIS_single_task_Lesions": three_d(
        "T1,T2,Flair", "label", "singletask_pimms_3d", "2", "0.001", "3", start="22000"
    ),
    "train_IDENTITY_BAD_1": three_d("T1,T2,Flair", "label", "singletask_pimms_3d", "2", "0.001", "3").replace(
        "= T1_", "= T2_"
    ),
    "train_MIDL_3D_HeMIS_parcellation_lesions": three_d(
        "T1,T1c,T2,FLAIR",
        "LesionGT,TumourGT,Parcellation",
        MULTI,
        "2",
        "0.001",
        "3",
        more="window_sampling = uniform",
        keys="sampler = sampler",
        unused=source("sampler", "(80,80,80)"),
    ),
    "train_modality_classification": classifier_3d("6", "0.001", "3", "(32,32,1)", labelled=True),
    "train_modality_classification_BRATS": classifier_3d("32", "0.1", "4", "(128,128,1)"),
    "train_modality_classification_BRATS_v2": classifier_3d("32", "3e-4", "4", "(128,128,1)", start="15000"),
    "train_modality_classification_Lesions": classifier_3d("32", "3e-2", "3", "(100,100,1)"),
}
EXPECTED = {
    "scalenet_config": Expected("T1,T2,T1c,Flair", "label", (32, 32, 32), 5, 0.01, None, 2, ""),
    "HA_train_HeMIS": Expected("Flair,T1,T1c,T2", "label", (32, 32, 32), 1, 0.001, "hemis", 1, "hemis cannot"),
    "train_HeMIS_config": Expected(
        "Flair,T1,T1c,T2", "Lesion", SLICE, 64, 1e-4, "hemis", 1, "HeMIS cannot be imported"
    ),
    "train_HeMIS_on_lesions_config": Expected(
        WMH, "BinLesion", SLICE, 32, 0.001, "hemis", 1, "HeMIS cannot be imported"
    ),
    "train_HeMIS_on_lesions_config_new": Expected(
        WMH, "BinLesion", SLICE, 64, 3e-4, "hemis", 1, "HeMIS cannot be imported"
    ),
    "train_HeMIS_on_lesions_config_new_without_ADNI": Expected(
        WMH, "BinLesion", SLICE, 64, 3e-4, "hemis", 1, "HeMIS cannot be imported"
    ),
    **dict.fromkeys(
        [f"inference_HeMIS_{kind}_ALL" for kind in ("HARD", "IDENTITY", "SOFT")],
        Expected("Flair,T1,T2", "BinLesion", SLICE, 1, 0.0, "hemis", 1, "starting_iter = 26001"),
    ),
    "inference_HeMIS_SOFT_FLAIR": Expected(WMH, "BinLesion", SLICE, 1, 0.0, "hemis", 1, "HeMIS cannot be imported"),
    "train_midl_config": Expected(SLOTS, "binlesion", SLICE, 6, 3e-4, "pimms_online", 1, "is no key"),
    "HM_train_midl_config_without_ADNI": Expected(
        SLOTS[:34], "binlesion", SLICE, 6, 3e-4, "pimms_online", 1, "[MULTITASK] counts as an input section"
    ),
    "MU_train_midl_config_without_ADNI": Expected(
        SLOTS, "binlesion", SLICE, 5, 3e-4, "pimms_online", 1, "decay_constant"
    ),
    "train_midl_config_without_ADNI_v4_toynet": Expected(
        SLOTS, "binlesion", SLICE, 32, 3e-4, "pimms_online", 1, "starting_iter = -1"
    ),
    "train_midl_config_without_ADNI_testing_v2": Expected(
        SLOTS, "binlesion", SLICE, 4, 3e-4, "pimms_online", 1, "hemis_diff.HeMIS cannot be imported"
    ),
    "inference_midl_config_without_ADNI_musnet": Expected(
        SLOTS, "binlesion", SLICE, 6, 3e-4, "pimms_online", 1, "modalities"
    ),
    "inference_midl_config_without_ADNI_T2FLAIR": Expected(
        SLOTS, "binlesion", SLICE, 1, 3e-4, "pimms_online", 1, "num_classes_seg"
    ),
    "MC_train_midl_config": Expected("scans", "binlesion", None, 6, 3e-4, "pimms_online", 2, "[scans]"),
    "train_modality_classifier": Expected(
        "input", "label", SLICE, 32, 1e-3, "modality_classifier", 1, "knows only window_sampling = resize"
    ),
    "train_modality_classifier_new": Expected(
        "input", "label", SLICE, 32, 3e-4, "modality_classifier", 1, "with_bn of [NETWORK]"
    ),
    "train_3D_HeMIS": Expected("Flair,T1,T1c,T2", "label", CUBE, 2, 1e-3, None, 2, ""),
    "train_HighRes3D_brats15": Expected(
        "Flair,T1,T1c,T2", "label", CUBE, 2, 1e-3, None, 2, "do_whole_volume_validation of [TRAINING]"
    ),
    "train_3D_HeMIS_parcellation_lesions": Expected(
        WMH, "label,Parcellation", CUBE, 2, 1e-2, None, 2, "2 sections of label is not implemented"
    ),
    "train_3D_HeMIS_single_task": Expected(
        WMH, "label", CUBE, 2, 1e-3, "pimms_online", 1, "singletask_pimms_3d cannot"
    ),
    "train_3D_HeMIS_single_task_BRATS": Expected(
        "T1,T1c,T2,Flair", "label", CUBE, 1, 1e-3, "pimms_online", 1, "singletask_pimms_3d cannot"
    ),
    "train_3D_HeMIS_single_task_Lesions": Expected(
        WMH, "label", CUBE, 2, 1e-3, "pimms_online", 1, "starting_iter = -1"
    ),
    "train_IDENTITY_3D_HeMIS_single_task_BRATS": Expected(
        "T1,T1c,T2,Flair", "label", CUBE, 2, 0.1, "pimms_online", 1, "singletask_pimms_3d cannot"
    ),
    "train_IDENTITY_3D_HeMIS_single_task_Lesions": Expected(
        "T1,T2,Flair", "label", CUBE, 2, 1e-3, "pimms_online", 1, "starting_iter = 22000"
    ),
    "train_IDENTITY_BAD_1": Expected(
        "T1,T2,Flair", "label", CUBE, 2, 1e-3, "pimms_online", 1, "singletask_pimms_3d cannot"
    ),
    "train_MIDL_3D_HeMIS_parcellation_lesions": Expected(
        "T1,T1c,T2,FLAIR", "LesionGT,TumourGT,Parcellation", CUBE, 2, 1e-3, None, 2, "MultitaskPIMMS3D cannot"
    ),
    "train_modality_classification": Expected(
        "image", "label", (32, 32, 1), 6, 1e-3, "modality_classifier", None, "csv_data_file"
    ),
    "train_modality_classification_BRATS": Expected(
        "image", "", (128, 128, 1), 32, 0.1, "modality_classifier", None, "modality_label"
    ),
    "train_modality_classification_BRATS_v2": Expected(
        "image", "", (128, 128, 1), 32, 3e-4, "modality_classifier", None, "starting_iter = 15000"
    ),
    "train_modality_classification_Lesions": Expected(
        "image", "", SLICE, 32, 3e-2, "modality_classifier", None, "modality_label"
    ),
}
CASES = [Case(name, text, EXPECTED[name]) for name, text in FILES.items()]
LOADING = [case for case in CASES if case.window is not None]


@pytest.fixture(autouse=True)
def nobodys_home(monkeypatch, tmp_path):
    monkeypatch.setenv("niftynet_config_home", str(tmp_path / "none"))


def written(case, folder):
    path = folder / f"{case.name}.ini"
    path.write_text(case.text)
    return path


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def tuples(text):
    return tuple(text.split(",")) if text else ()


def test_every_family_is_there():
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)


@by_name(LOADING)
def test_values_are_those_of_the_description(case, tmp_path):
    config = load_config(written(case, tmp_path))
    assert config.sources("image") == tuples(case.image)
    assert config.sources("label") == tuples(case.label)
    assert config.common("image", "spatial_window_size") == case.window
    assert config.network.batch_size == case.batch
    assert config.training.lr == case.lr
    assert config.system.cuda_devices == ""


@by_name(CASES)
def test_every_key_gets_one_verdict_with_its_line_and_a_sentence_and_none_is_unknown(case, tmp_path):
    path = written(case, tmp_path)
    lines = path.read_text().splitlines()
    expected = {}
    section = ""
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):
            section = line.strip("[]")
        elif line.strip() and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            expected[number] = (section, key.strip(), value.strip().strip('"'))
    report = migrate_file(path)
    rows = {row.line: (row.section, row.key, row.text) for row in report.keys if row.line and row.key}
    assert rows == expected
    assert len([row for row in report.keys if row.line and row.key]) == len(expected)
    assert all(row.sentence and "\n" not in row.sentence for row in report.keys)
    assert not [row for row in report.keys if "is not a key" in row.sentence]


@by_name(CASES)
def test_the_outcome_here_and_in_niftynet_is_told(case, tmp_path):
    report = migrate_file(written(case, tmp_path))
    meant = [action for action in report.actions if action.is_meant]
    assert report.exit_code == max(action.outcome for action in meant)
    assert all(bool(action.reasons) == (action.outcome is Outcome.STOPS) for action in report.actions)
    if case.code is not None:
        assert report.exit_code == case.code
    told = " / ".join(report.original)
    assert case.stock in told if case.stock else not told


@by_name(LOADING)
def test_networks_are_resolved_or_refused_in_a_sentence(case, tmp_path):
    path = written(case, tmp_path)
    name = load_config(path).network.name
    report = migrate_file(path)
    if case.network is None:
        with pytest.raises(ConfigError, match="is not available"):
            resolve_network(name)
        assert "is not available" in report.network
        (row,) = [row for row in report.keys if (row.section, row.key) == ("NETWORK", "name")]
        assert row.stops
        assert row.verdict is Verdict.UNSUPPORTED
    else:
        assert resolve_network(name) == case.network
        assert case.network in report.network


@by_name([case for case in LOADING if case.network])
def test_the_cleaned_file_loads_without_remark_and_keeps_the_authors_comments(case, tmp_path):
    path = written(case, tmp_path)
    config = load_config(write_cleaned(path, tmp_path / "clean" / path.name))
    before, after = migrate_file(path), migrate_file(tmp_path / "clean" / path.name)
    assert [(action.verb, action.outcome) for action in after.actions] == [
        (action.verb, action.outcome) for action in before.actions
    ]
    assert config.remarks == ()
    assert config.network.name == case.network
    assert config.sources("image") == tuples(case.image)
    assert config.training.lr == case.lr
    assert "#path_to_search = /home/tom/" in (tmp_path / "clean" / path.name).read_text() or case.name.startswith(
        "train_modality"
    )
    assert path.read_text() == case.text


@by_name([case for case in CASES if "queue_length = 40" in case.text])
def test_a_queue_under_system_is_told_with_the_value_in_effect(case, tmp_path):
    (row,) = [row for row in migrate_file(written(case, tmp_path)).keys if (row.section, row.key)[1] == "queue_length"]
    assert row.verdict is Verdict.NO_EFFECT
    assert "it belongs to [NETWORK], where it is 5" in row.sentence
    assert not row.changes_results


def test_output_prob_under_inference_is_told_with_the_value_of_the_task(tmp_path):
    path = written(next(case for case in CASES if case.name == "train_modality_classifier"), tmp_path)
    (row,) = [row for row in migrate_file(path).keys if (row.section, row.key) == ("INFERENCE", "output_prob")]
    assert "it belongs to [CLASSIFICATION], where it is True" in row.sentence


def test_a_hundred_files_take_less_than_ten_seconds(tmp_path):
    paths = [written(case._replace(name=f"{case.name}_{copy}"), tmp_path) for copy in range(4) for case in CASES]
    start = time.perf_counter()
    for path in paths[:100]:
        migrate_file(path)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("case", [CASES[10], CASES[20]], ids=lambda case: case.name)
def test_the_command_lines_of_the_forks_scripts_parse_against_their_file(case, tmp_path):
    options = {"dataset_split_file": "S.csv", "inference_iter": "57900", "volume_padding_size": "0,0,16"}
    config = load_config(written(case, tmp_path), {**options, "save_seg_dir": "./output/y"})
    assert config.network.volume_padding_size == (0, 0, 16)
    assert config.inference.inference_iter == 57900


def test_names_with_a_keyword_in_the_middle_join_on_what_is_left(tmp_path):
    folder = Path(tmp_path)
    for word in ("BFCorr_T1", "BFCorr_T2", "BFCorr_Flair", "BinLesion"):
        (folder / f"sub1_{word}.nii.gz").write_bytes(b"x")
    case = next(case for case in CASES if case.name == "train_HeMIS_on_lesions_config")
    path = written(case._replace(text=case.text.replace(DATA, str(folder))), tmp_path)
    join = migrate_file(path).join
    assert join.num_subjects == 1
    assert "[Flair] 1 file" in join.lines[0]


def test_slots_lesion_and_modalities_of_one_subject_join_on_its_name(tmp_path):
    for word in [*SLOTS.split(","), "BinLesion", "modalities"]:
        (tmp_path / f"s1_{word}.nii.gz").write_bytes(b"x")
        (tmp_path / f"s2_{word}.nii.gz").write_bytes(b"x")
    (tmp_path / "s2_input4.nii.gz").unlink()
    case = next(case for case in CASES if case.name == "train_midl_config")
    join = migrate_file(written(case._replace(text=case.text.replace(DATA, str(tmp_path))), tmp_path)).join
    assert join.num_subjects == 2
    assert any("1 lack some of the scans and are kept, which NiftyNet left out: s2" in line for line in join.lines)
