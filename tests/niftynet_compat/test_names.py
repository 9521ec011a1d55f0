"""What NiftyNet's words stand for."""

import pytest

from niftynet_compat.schema.programs import (
    APPLICATIONS,
    NETWORKS,
    OUR_NETWORKS,
    application_section,
    canonical_action,
    resolve_network,
)
from niftynet_compat.schema.sections import TASK_SECTIONS
from pimms_tf.errors import ConfigError

STOCK = (
    "simulator_gan",
    "simple_gan",
    "highres3dnet",
    "highres3dnet_small",
    "highres3dnet_large",
    "toynet",
    "unet",
    "nonewnet",
    "vnet",
    "dense_vnet",
    "deepmedic",
    "scalenet",
    "holisticnet",
    "unet_2d",
    "resnet",
    "se_resnet",
    "vae",
)
FORK = (
    "hemis",
    "singletask_pimms_3d",
    "multitask_pimms_3d",
    "niftynet.contrib.hemis.hemis.HeMIS",
    "niftynet.contrib.hemis_midl.hemis.HeMIS",
    "niftynet.contrib.hemis_midl.hemis_diff.HeMIS",
    "niftynet.contrib.midl.resnet_plugin.ResNet",
    "niftynet.network.highres3dnet.HighRes3DNet",
    "niftynet.contrib.pimms.multitask_pimms_3D.MultitaskPIMMS3D",
)


def test_every_network_of_niftynet_and_the_fork_is_known():
    assert set(STOCK) | set(FORK) | set(OUR_NETWORKS) <= set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_known_network_is_one_of_ours_or_refused_with_its_reason(name):
    network = NETWORKS[name]
    if network.ours is None:
        assert network.reason
        with pytest.raises(ConfigError, match=f"name = {name} is not available: {network.reason[:20]}"):
            resolve_network(name)
    else:
        assert resolve_network(name) == network.ours
        assert network.ours in OUR_NETWORKS


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("niftynet.contrib.hemis.hemis.HeMIS", "hemis"),
        ("niftynet.contrib.hemis_midl.hemis.HeMIS", "pimms_online"),
        ("niftynet.contrib.midl.resnet_plugin.ResNet", "modality_classifier"),
    ],
)
def test_the_published_networks_have_their_counterparts(name, ours):
    assert resolve_network(name) == ours


def test_an_unknown_network_is_refused_with_the_nearest_name_and_never_imported():
    with pytest.raises(ConfigError, match="did you mean pimms_soft?"):
        resolve_network("pimms_sotf")
    with pytest.raises(ConfigError, match="is not the name of a network; choose one of hemis, pimms_soft"):
        resolve_network("os.path.join")


def test_applications_lead_to_sections_that_exist():
    assert {application_section(name) for name in APPLICATIONS} == set(TASK_SECTIONS)
    with pytest.raises(ConfigError, match="net_regress is not available"):
        application_section("net_regress")
    with pytest.raises(ConfigError, match="not the name of an application; choose one of net_segment"):
        application_section("shutil.rmtree")


def test_actions_have_one_spelling_inside():
    assert [canonical_action(word) for word in ("train", "infer", "eval", "export")] == [
        "training",
        "inference",
        "evaluation",
        "export",
    ]
    with pytest.raises(ConfigError, match="xyzzy is not an action; choose one of train, inference"):
        canonical_action("xyzzy")
