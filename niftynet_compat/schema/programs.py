"""NiftyNet's words for programs, actions and networks, and what each means here; none is ever imported.

Source: `niftynet/engine/application_factory.py`; the dotted names that occur in the PIMMS fork's INI files and scripts.
"""

from typing import NamedTuple

from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError

ACTIONS: dict[str, str] = {
    "train": "training",
    "training": "training",
    "inference": "inference",
    "infer": "inference",
    "evaluation": "evaluation",
    "evaluate": "evaluation",
    "eval": "evaluation",
    "export": "export",
}

# Word after -a, or the program's own name, to the section it needs.
APPLICATIONS: dict[str, str] = {
    "net_segment": "SEGMENTATION",
    "net_classify": "CLASSIFICATION",
    "net_multitask": "MULTITASK",
    "niftynet.application.segmentation_application.SegmentationApplication": "SEGMENTATION",
    "niftynet.application.classification_application.ClassificationApplication": "CLASSIFICATION",
    "niftynet.contrib.hemis.hemis_app.BRATSApp": "SEGMENTATION",
    "niftynet.contrib.hemis_midl.hemis_app.BRATSApp": "MULTITASK",
    "niftynet.contrib.pimms.3D_HeMIS_application.SegmentationApplication": "SEGMENTATION",
    "niftynet.contrib.pimms.3D_HeMIS_single_segmentation_application.SegmentationApplication": "SEGMENTATION",
}
APPLICATION_OF_SECTION: dict[str, str] = {
    "SEGMENTATION": "net_segment",
    "CLASSIFICATION": "net_classify",
    "MULTITASK": "net_multitask",
}
UNAVAILABLE_APPLICATIONS = (
    "net_regress",
    "net_autoencoder",
    "net_gan",
    "niftynet.application.regression_application.RegressionApplication",
    "niftynet.application.autoencoder_application.AutoencoderApplication",
    "niftynet.application.gan_application.GANApplication",
    "niftynet.application.label_driven_registration.RegApp",
)


class Fixed(NamedTuple):
    """A value that a program of the fork had whatever was set; with `without`, only where that key is unset."""

    section: str
    key: str
    value: str | bool | tuple[int, ...]
    without: str = ""


_TWO_DIMENSIONAL_PROGRAM = (Fixed("NETWORK", "whitening", True), Fixed("NETWORK", "window_sampling", "resize"))
# Word after -a to what the program of that name did whatever its file and command line said.
FIXED_BY_PROGRAM: dict[str, tuple[Fixed, ...]] = {
    "niftynet.contrib.hemis.hemis_app.BRATSApp": _TWO_DIMENSIONAL_PROGRAM,
    "niftynet.contrib.hemis_midl.hemis_app.BRATSApp": _TWO_DIMENSIONAL_PROGRAM,
    "niftynet.contrib.pimms.3D_HeMIS_application.SegmentationApplication": (
        Fixed("NETWORK", "name", "hemis"),
        Fixed("SEGMENTATION", "permuted_indices", (), without="idxs_to_drop"),
    ),
}


class Network(NamedTuple):
    """What a network name stands for: one of our networks, or None with one sentence why not.

    A reason beside one of ours says in what the original was another network.
    """

    ours: str | None
    reason: str = ""


_GENERIC = "it is a general NiftyNet network; only the PIMMS networks are built here"
VOLUMES = "its 3-D back-ends were never published; ours look at slices or volumes, as spatial_window_size is one"
_UNPUBLISHED = "its parcellation branch was never published; pimms_online segments lesions alone"


def _rows(names: str, network: Network) -> dict[str, Network]:
    return dict.fromkeys(names.split(), network)


NETWORKS: dict[str, Network] = {
    "hemis": Network("hemis"),
    "pimms_soft": Network("pimms_soft"),
    "pimms_hard": Network("pimms_hard"),
    "pimms_online": Network("pimms_online"),
    "modality_classifier": Network("modality_classifier"),
    "niftynet.contrib.hemis.hemis.HeMIS": Network("hemis"),
    "niftynet.contrib.hemis_midl.hemis.HeMIS": Network("pimms_online"),
    # The same network; its released code scrambles pixels by a reshape, which is not reproduced.
    "niftynet.contrib.hemis_midl.hemis_diff.HeMIS": Network("pimms_online"),
    "niftynet.contrib.midl.resnet_plugin.ResNet": Network("modality_classifier"),
    "resnet": Network("modality_classifier"),
    "niftynet.network.resnet.ResNet": Network("modality_classifier"),
    "singletask_pimms_3d": Network("pimms_online", VOLUMES),
    "niftynet.contrib.pimms.singletask_pimms_3D.SingletaskPIMMS3D": Network("pimms_online", VOLUMES),
    "multitask_pimms_3d": Network(None, _UNPUBLISHED),
    "niftynet.contrib.pimms.multitask_pimms_3D.MultitaskPIMMS3D": Network(None, _UNPUBLISHED),
    "niftynet.network.highres3dnet.HighRes3DNet": Network(None, _GENERIC),
    **_rows(
        "highres3dnet highres3dnet_small highres3dnet_large toynet unet nonewnet vnet dense_vnet",
        Network(None, _GENERIC),
    ),
    **_rows("deepmedic scalenet holisticnet unet_2d se_resnet", Network(None, _GENERIC)),
    **_rows("simulator_gan simple_gan vae", Network(None, "it generates images, which no task here does")),
}
# Names that NiftyNet 0.6 itself can import.
_REGISTERED = (
    "simulator_gan simple_gan highres3dnet highres3dnet_small highres3dnet_large toynet unet nonewnet vnet dense_vnet "
    "deepmedic scalenet holisticnet unet_2d resnet se_resnet vae"
)
STOCK_NETWORKS: frozenset[str] = frozenset(
    (*_REGISTERED.split(), "niftynet.network.highres3dnet.HighRes3DNet", "niftynet.network.resnet.ResNet")
)
# Networks of the fork's 2-D programs, which did some things whatever the file said.
TWO_DIMENSIONAL = ("niftynet.contrib.hemis.", "niftynet.contrib.hemis_midl.")
OUR_NETWORKS = ("hemis", "pimms_soft", "pimms_hard", "pimms_online", "modality_classifier")


def ours(name: str) -> str | None:
    """Returns which of our networks a name stands for; None for one that is unknown, or not built here."""
    network = NETWORKS.get(name)
    return None if network is None else network.ours


def resolve_network(name: str) -> str:
    """Returns which of `hemis`, `pimms_soft`, `pimms_hard`, `pimms_online`, `modality_classifier` a name stands for.

    Raises:
        ConfigError: the name is unknown (with the nearest known one), or known and not available (with the reason).
    """
    if complaint := network_complaint(name, must_be_built=True):
        raise ConfigError(f"[NETWORK] name = {name} {complaint}")
    return NETWORKS[name].ours


def network_complaint(name: str, must_be_built: bool = False) -> str | None:
    """Returns why `name` is no network name at all, with the nearest spelling; None for every name of `NETWORKS`.

    A name that is known and not built here is no mistake in a file, but one for those who want to run it.
    """
    if name in NETWORKS:
        network = NETWORKS[name]
        if network.ours is not None or not must_be_built:
            return None
        return f"is not available: {network.reason}; choose one of {', '.join(OUR_NETWORKS)}"
    known = nearest(name, NETWORKS, limit=4)
    hint = f"did you mean {known}?" if known else f"choose one of {', '.join(OUR_NETWORKS)}"
    return f"is not the name of a network; {hint}"


def application_section(application: str) -> str:
    """Returns the section an application needs: SEGMENTATION, CLASSIFICATION or MULTITASK.

    Raises:
        ConfigError: the application is unknown, or a NiftyNet application that is not built here.
    """
    if application in APPLICATIONS:
        return APPLICATIONS[application]
    ours = ", ".join(APPLICATION_OF_SECTION.values())
    if application in UNAVAILABLE_APPLICATIONS:
        raise ConfigError(f"-a {application} is not available: this package has {ours}; use NiftyNet for other tasks")
    known = nearest(application, APPLICATIONS)
    hint = f"did you mean {known}?" if known else f"choose one of {ours}"
    raise ConfigError(f"-a {application} is not the name of an application; {hint}")


def canonical_action(action: str) -> str:
    """Returns `training`, `inference`, `evaluation` or `export` for the word of a command line.

    Raises:
        ConfigError: the word is none of `ACTIONS`.
    """
    if action in ACTIONS:
        return ACTIONS[action]
    known = nearest(action, ACTIONS)
    hint = f"did you mean {known}?" if known else "choose one of train, inference, evaluation, export"
    raise ConfigError(f"{action} is not an action; {hint}")
