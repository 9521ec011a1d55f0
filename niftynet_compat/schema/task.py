"""[SEGMENTATION], [CLASSIFICATION], [MULTITASK] and the input sections: keys, defaults and verdicts.

Source: `niftynet/utilities/user_parameters_custom.py`, `user_parameters_default.py`; the fork's trees.
"""

from dataclasses import dataclass
from typing import ClassVar

from niftynet_compat import ini
from niftynet_compat.schema.keys import differs, key, orientation, pattern, sizes, sources, three_spacings, unsupported

_SELECTIVE = "only a contributed sampler of NiftyNet reads it, which is not built here"
_MIX_UP = "mix-up is not built"
_DISTINCT = "a value outside the classes is an error; label_normalisation numbers other values"
_MODALITIES_ONLY = "other values than modality labels are not used; rows are joined by ids as text"


@dataclass(frozen=True)
class SegmentationSection:
    """[SEGMENTATION]: one label per voxel."""

    USED_BY: ClassVar[str] = "train inference"

    image: tuple[str, ...] = sources(
        "sections of scans",
        differs="subjects that lack some of the scans are kept unless keep_incomplete = False in [PIMMS]",
        used_by="train inference export",
    )
    label: tuple[str, ...] = sources(
        "section of the label map, the first if there are several",
        used_by="train inference evaluation",
    )
    weight: tuple[str, ...] = sources(
        "section of voxel weights of the loss", unsupported="no loss here weighs voxels", used_by="train"
    )
    sampler: tuple[str, ...] = sources("section of the sampling map", used_by="train")
    inferred: tuple[str, ...] = sources("section of segmentations to evaluate", used_by="evaluation")
    value: tuple[str, ...] = sources("section of values", no_effect="no network here uses values")
    modality_label: tuple[str, ...] = sources(
        "section of the modality of each scan, a list by csv_data_file or files",
        differs="the section named is read; the fork read one that is called modality_label",
        used_by="train inference",
        fork=True,
    )
    num_classes: int = key(
        ini.to_int, -1, "label values, background included", differs=_DISTINCT, used_by="train inference evaluation"
    )
    output_prob: bool = key(ini.to_bool, False, "write probabilities", used_by="inference")
    label_normalisation: bool = key(
        ini.to_bool,
        False,
        "map the label values found to 0, 1, ...",
        differs="values that the training subjects did not have become 0 as in NiftyNet, but with a warning",
        used_by="train inference evaluation",
    )
    softmax: bool = key(
        ini.to_bool,
        True,
        "softmax before the loss",
        unsupported="every loss here takes the softmax itself",
        used_by="train",
    )
    min_sampling_ratio: float = key(ini.to_float, 0, "selective sampler", no_effect=_SELECTIVE)
    compulsory_labels: tuple[int, ...] = key(ini.to_ints, (0, 1), "selective sampler", no_effect=_SELECTIVE)
    rand_samples: int = key(ini.to_int, 0, "selective sampler", no_effect=_SELECTIVE)
    min_numb_labels: int = key(ini.to_int, 1, "selective sampler", no_effect=_SELECTIVE)
    proba_connect: bool = key(ini.to_bool, True, "selective sampler", no_effect=_SELECTIVE)
    evaluation_units: str = key(
        ini.to_str,
        "foreground",
        "what one row of NiftyNet's tables is",
        "foreground",
        "label",
        "cc",
        several=True,
        used_by="evaluation",
    )
    do_mixup: bool = key(ini.to_bool, False, "mix-up augmentation", unsupported=_MIX_UP, used_by="train")
    mixup_alpha: float = key(ini.to_float, 0.2, "mix-up augmentation", low=0, no_effect=_MIX_UP, used_by="train")
    mix_match: bool = key(ini.to_bool, False, "mix-up augmentation", unsupported=_MIX_UP, used_by="train")
    idxs_to_drop: tuple[int, ...] = key(
        ini.to_ints,
        (),
        "scans that count as absent at inference, by their place in image, from 0",
        check=sizes,
        differs="one program of the fork also shuffled the other scans",
        used_by="inference",
        fork=True,
    )
    permuted_indices: tuple[int, ...] = key(
        ini.to_ints,
        (),
        "order of the scans at inference, after idxs_to_drop; slots keep their modality",
        check=sizes,
        differs="the fork looked at it only together with idxs_to_drop",
        used_by="inference",
        fork=True,
    )
    switch_dataset_every_n: int = key(
        ini.to_int,
        -1,
        "alternate training sets",
        unsupported="all training subjects are drawn from alike",
        used_by="train",
        fork=True,
    )


@dataclass(frozen=True)
class ClassificationSection:
    """[CLASSIFICATION]: one label per scan."""

    USED_BY: ClassVar[str] = "train inference"

    image: tuple[str, ...] = sources("sections of scans", used_by="train inference export")
    label: tuple[str, ...] = sources("section of the label", used_by="train")
    sampler: tuple[str, ...] = sources("section of the sampling map", used_by="train")
    inferred: tuple[str, ...] = sources(
        "section of classifications to evaluate", unsupported="evaluation scores segmentations", used_by="evaluation"
    )
    modality_label: tuple[str, ...] = sources(
        "section of the modality of each scan, a list by csv_data_file or files",
        differs="the section named is read; the fork read one that is called modality_label",
        used_by="train inference",
        fork=True,
    )
    num_classes: int = key(ini.to_int, -1, "classes", differs=_DISTINCT)
    output_prob: bool = key(
        ini.to_bool,
        False,
        "write probabilities",
        differs="the tables that net_classify writes follow it; modality_scores.csv always holds probabilities",
        used_by="inference",
    )
    label_normalisation: bool = key(
        ini.to_bool,
        False,
        "map the label values found to 0, 1, ...",
        differs="values that the training subjects did not have are an error; NiftyNet made them 0",
    )
    with_bn: bool = key(ini.to_bool, True, "batch normalisation", no_effect="the fork never read it", fork=True)
    csv_labels: bool = key(ini.to_bool, False, "labels from a list", no_effect="the fork never read it", fork=True)


@dataclass(frozen=True)
class MultitaskSection:
    """[MULTITASK]: the published PIMMS task, segmentation and modality classification together."""

    USED_BY: ClassVar[str] = "train inference"

    image: tuple[str, ...] = sources(
        "sections of scans, in any order",
        fork=True,
        differs="subjects that lack some of the scans are kept unless keep_incomplete = False in [PIMMS]",
        used_by="train inference export",
    )
    label: tuple[str, ...] = sources("section of the label map", fork=True, used_by="train inference evaluation")
    modalities: tuple[str, ...] = sources("section of the modality labels", fork=True, used_by="train")
    num_classes_seg: int = key(
        ini.to_int, -1, "label values, background included", fork=True, used_by="train inference evaluation"
    )
    num_classes_classification: int = key(ini.to_int, -1, "modality classes, the empty slot included", fork=True)
    decay_constant: float = key(
        ini.to_float,
        0.01,
        "gamma of the weight exp(-gamma i) of the modality loss",
        low=0,
        fork=True,
        differs="the weight is exp(-gamma i) times modality_weight of [PIMMS], and does not depend on decay",
        used_by="train",
    )
    output_prob: bool = key(ini.to_bool, False, "write probabilities", fork=True, used_by="inference")
    label_normalisation: bool = key(
        ini.to_bool,
        False,
        "map the label values found to 0, 1, ...",
        fork=True,
        differs="values that the training subjects did not have become 0 as in the fork, but with a warning",
        used_by="train inference evaluation",
    )

    @property
    def num_classes(self) -> int:
        return self.num_classes_seg


@dataclass(frozen=True)
class InputSection:
    """Any other section: where one kind of file lies and how it is read.

    `csv_file` of a loaded configuration is an absolute path; folders in `path_to_search` are relative to the working
    directory. `referenced` is no key: it is False for a section that no key of the task names.
    """

    USED_BY: ClassVar[str] = "train inference evaluation"

    csv_file: str = key(
        ini.to_str,
        "",
        "list of subject,path; replaces the search",
        differs="a list that is not there is an error; NiftyNet then searched as if none were named",
    )
    csv_data_file: str = key(
        ini.to_str, "", "list of subject,value,... that says the modality of each scan", differs=_MODALITIES_ONLY
    )
    to_ohe: bool = key(
        ini.to_bool,
        False,
        "one-hot encode csv_data_file",
        no_effect="losses here take class numbers, which mean the same",
    )
    path_to_search: str = key(
        ini.to_str,
        "",
        "folders separated by commas, not searched recursively",
        differs="hidden files are passed over, and a missing folder of a section in use is an error at once",
    )
    filename_contains: tuple[str, ...] = key(ini.to_strs, (), "words that all occur in a file's name")
    filename_not_contains: tuple[str, ...] = key(
        ini.to_strs, (), "words that do not occur in a file's name", keeps_empty=True
    )
    filename_removefromid: str = key(
        ini.to_str, "", "regular expression removed from the name to form the id", check=pattern
    )
    interp_order: int = key(ini.to_int, 1, "spline order, 0 for labels, -1 never interpolated", low=-1, high=3)
    loader: str | None = key(
        ini.to_str,
        None,
        "reader of the files; unset: by their extension",
        "nibabel",
        "opencv",
        "skimage",
        "pillow",
        "simpleitk",
        "dummy",
        fold=True,
        words={
            **dict.fromkeys(
                ("opencv", "skimage", "pillow"), differs("opencv, skimage and pillow mean one and the same reader")
            ),
            "dummy": unsupported("dummy makes files up, which is not built, so reading stops", stops=True),
        },
    )
    pixdim: tuple[float, ...] = key(ini.to_floats, (), "target spacing in mm", check=three_spacings)
    axcodes: tuple[str, ...] = key(ini.to_strs, (), "target orientation", check=orientation)
    spatial_window_size: tuple[int, ...] = key(
        ini.to_window,
        (),
        "window in training, 0 = full length",
        differs="all sections of image must agree; NiftyNet took the last one's",
        differs_for="image",
        used_by="train inference export",
    )
    referenced: bool = True
