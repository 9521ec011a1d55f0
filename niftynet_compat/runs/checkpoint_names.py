"""The variable names of the released PIMMS networks (TensorFlow 1), each with its path here.

The released names are layer names in creation order, so `SEGMENTER` and `CLASSIFIER` list every layer once and serve in
both directions.

Source: niftynet/contrib/hemis/hemis.py, contrib/midl/resnet_plugin.py, contrib/hemis_midl/{hemis,resnet_plugin,bn}.py,
niftynet/network/resnet.py; the names are those of graphs that this code built.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

# Our leaf and the released one. {s} is gamma, beta, moving_mean or moving_variance; {N} the scope that tf.contrib puts
# around them. Layout is the same on both sides: kernels (height, width, in, out), fully connected (in, out); only a
# PReLU slope (channel,) is (1, 1, channel) here.
_CONVOLUTION = (("conv/kernel", "conv_/w"), ("norm/{s}", "bn_/{N}{s}"), ("prelu/alpha", "prelu_acti_/alpha"))
_NORM = (("{s}", "{N}{s}"),)
_OWN_NORM = (("{s}", "{s}"),)
_DENSE = (("kernel", "w"), ("bias", "b"))

# Our layer, the released layer, what it holds. {m} counts back-ends from 0.
SEGMENTER = (
    ("backend_{m}/conv_1", "HeMIS/HeMISBackendBlock_{m}/backend_conv_1_bn_relu", _CONVOLUTION),
    ("backend_{m}/conv_2", "HeMIS/HeMISBackendBlock_{m}/backend_conv_2_bn_relu", _CONVOLUTION),
    ("frontend/conv_1", "HeMIS/HighRes3DNet/conv_1_bn_prelu", _CONVOLUTION),
    ("frontend/conv_2", "HeMIS/HighRes3DNet/conv_2_bn_softmax", _CONVOLUTION),
)
# {r} is resolution 1, 2, 3 here and nothing, _1, _2 there; {k} counts blocks from 1, the projecting one before is 0.
# {C} is the classifier's scope, {e} is _bn where its strided convolutions are normalised, {h} that of its last layer.
CLASSIFIER = (
    ("classifier/stem", "{C}/conv{e}", _CONVOLUTION),
    ("classifier/resolution_{r}_block_0/norm", "{C}/downres{r}/bottleneck/batch_norm", _NORM),
    ("classifier/resolution_{r}_block_0/reduce", "{C}/downres{r}/bottleneck/conv{e}", _CONVOLUTION),
    ("classifier/resolution_{r}_block_0/shortcut", "{C}/downres{r}/bottleneck/conv{e}_1", _CONVOLUTION),
    ("classifier/resolution_{r}_block_0/convolve", "{C}/downres{r}/bottleneck/conv_bn_relu", _CONVOLUTION),
    ("classifier/resolution_{r}_block_0/expand", "{C}/downres{r}/bottleneck/conv_bn_relu_1", _CONVOLUTION),
    ("classifier/resolution_{r}_block_{k}/reduce", "{C}/downres{r}/bottleneck_{k}/conv_bn_relu", _CONVOLUTION),
    ("classifier/resolution_{r}_block_{k}/convolve", "{C}/downres{r}/bottleneck_{k}/conv_bn_relu_1", _CONVOLUTION),
    ("classifier/resolution_{r}_block_{k}/expand", "{C}/downres{r}/bottleneck_{k}/conv_bn_relu_2", _CONVOLUTION),
    ("classifier/norm", "{C}/batch_norm", _NORM),
    ("classifier/head", "{C}/{h}", _DENSE),
    ("classifier/head_norm", "{C}/fc_bn/bn_", _OWN_NORM),
)


@dataclass(frozen=True)
class Graph:
    """How one released program spells its variables."""

    network: str  # our name of it
    has_segmenter: bool
    classifier: str = ""  # scope of its classifier, "" for none
    inner: str = ""  # scope within the classifier's normalisations
    extra_bn: bool = False  # built with `with_bn=True`
    head: str = "fc/fc_"  # scope of the fully connected layer


GRAPHS = {
    "hemis": Graph("hemis", has_segmenter=True),
    "modality_classifier": Graph("modality_classifier", False, "ResNet", head="fc_bn/fc_"),
    "pimms_online": Graph("pimms_online", True, "HeMIS/modality_classifier/ResNet", inner="BatchNorm/"),
}

_STATISTICS = "gamma|beta|moving_mean|moving_variance"
# Field: its spelling here, and there.
_FIELDS = {
    "m": (r"0|[1-9]\d*", r"0|[1-9]\d*"),
    "k": (r"[1-9]\d*", r"[1-9]\d*"),
    "r": (r"[1-9]\d*", r"|_[1-9]\d*"),
    "s": (_STATISTICS, _STATISTICS),
}

# What a checkpoint holds besides weights and statistics; `of` is the variable that it belongs to.
AUXILIARY = (
    ("zero-debias helper", re.compile(r"(.+)/(?P<of>\1/moving_(?:mean|variance))/(?:biased|local_step)")),
    ("Adam slot", re.compile(r"(?P<of>.+)/Adam(?:_1)?")),
    ("slot of another optimiser", re.compile(r"(?P<of>.+)/(?:Momentum|Adagrad|RMSProp(?:_1)?)")),
    ("average of a weight", re.compile(r"(?P<of>.+)/ExponentialMovingAverage")),
    ("power of Adam's decay", re.compile(r"(?P<of>)(?:.+/)?beta[12]_power")),
    ("global step", re.compile(r"(?P<of>)(?:.+/)?global_step")),
)


def tf1_name(path: str, network: str | Graph) -> str | None:
    """Returns the released name of our variable path; None for a path that the released network has not.

    `unseen` has none of its own, see `local_step_name`.
    """
    graph = GRAPHS[network] if isinstance(network, str) else network
    return _translated(path.removeprefix("pimms/"), _rules(graph), 0)


def our_path(name: str, network: str | Graph) -> str | None:
    """Returns our path, without the model's name, of a released variable name; None for any other name."""
    graph = GRAPHS[network] if isinstance(network, str) else network
    return _translated(name, _rules(graph), 1)


def local_step_name(path: str, network: str | Graph) -> str | None:
    """Returns the released name of the count of updates behind our variable `…/unseen`; None for another path."""
    scope, _, leaf = path.rpartition("/")
    mean = tf1_name(f"{scope}/moving_mean", network) if leaf == "unseen" else None
    # TensorFlow 1 put the helper below the scope and there below the full name of what it helps; those of mean and
    # variance count alike.
    return None if mean is None else f"{mean.removesuffix('/moving_mean')}/{mean}/local_step"


def auxiliary_kind(name: str, graph: Graph) -> str | None:
    """Returns what a variable is that is neither weight nor statistic; None for any other, and for one of nothing."""
    for kind, pattern in AUXILIARY:
        match = pattern.fullmatch(name)
        if match:
            return kind if not match["of"] or our_path(match["of"], graph) else None
    return None


def recognised(names: Collection[str]) -> Graph | None:
    """Returns the spelling that variable names follow; None if they are of none of the released networks."""
    if any(name.startswith("HeMIS/modality_classifier/ResNet/") for name in names):
        graph = GRAPHS["pimms_online"]
    elif any(name.startswith(("HeMIS/HeMISBackendBlock_", "HeMIS/HighRes3DNet/")) for name in names):
        return GRAPHS["hemis"]
    elif any(name.startswith("ResNet/") for name in names):
        graph = GRAPHS["modality_classifier"]
    else:
        return None
    own = [name.removeprefix(f"{graph.classifier}/") for name in names if name.startswith(f"{graph.classifier}/")]
    heads = [head for head in ("fc_bn/fc_", "fc/fc_", "fc") if any(name.startswith(f"{head}/") for name in own)]
    return replace(
        graph,
        inner="BatchNorm/" if any("/BatchNorm/" in name for name in own) else "",
        extra_bn=any(name.startswith("conv_bn/") for name in own),
        head=heads[0] if heads else graph.head,
    )


def examples(network: str) -> list[str]:
    """Returns one or two released names by which a network can be told from the others."""
    paths = ("backend_0/conv_1/conv/kernel", "classifier/stem/conv/kernel")
    return [name for path in paths if (name := tf1_name(path, network)) is not None]


@lru_cache(maxsize=16)
def _rules(graph: Graph) -> tuple[tuple[tuple[re.Pattern, str], tuple[re.Pattern, str]], ...]:
    """Returns a row per layer and leaf: pattern and template of our path, pattern and template of the released name."""
    rows = [(row, "") for row in SEGMENTER if graph.has_segmenter]
    rows += [(row, graph.inner) for row in CLASSIFIER if graph.classifier]
    scopes = {"{C}": graph.classifier, "{e}": "_bn" if graph.extra_bn else "", "{h}": graph.head}
    rules = []
    for (ours, released, leaves), inner in rows:
        for our_leaf, released_leaf in leaves:
            name = f"{released}/{released_leaf}"
            for field, text in (scopes | {"{N}": inner}).items():
                name = name.replace(field, text)
            sides = (f"{ours}/{our_leaf}", name)
            rules.append(tuple((_pattern(template, side), template) for side, template in enumerate(sides)))
    return tuple(rules)


def _pattern(template: str, side: int) -> re.Pattern:
    words = re.split(r"\{(\w)\}", template)  # text, field, text, …
    words[0::2] = [re.escape(word) for word in words[0::2]]
    words[1::2] = [f"(?P<{field}>{_FIELDS[field][side]})" for field in words[1::2]]
    return re.compile("".join(words))


def _translated(text: str, rules: Sequence, side: int) -> str | None:
    for rule in rules:
        match = rule[side][0].fullmatch(text)
        if match:
            fields = match.groupdict()
            if "r" in fields:
                fields["r"] = _other_resolution(fields["r"], side)
            return rule[1 - side][1].format(**fields)
    return None


def _other_resolution(text: str, side: int) -> str:
    if side == 1:
        return str(int(text.removeprefix("_") or 0) + 1)
    return "" if text == "1" else f"_{int(text) - 1}"
