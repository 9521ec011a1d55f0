"""What an action needs to find in a file, and names in it that must exist."""

import dataclasses
from collections.abc import Mapping, Sequence

from niftynet_compat.ini import IniSection
from niftynet_compat.schema import programs, sections
from niftynet_compat.schema.sections import InputSection, PimmsSection, TaskSection, TrainingSection, shown
from niftynet_compat.settings.reading import Findings
from niftynet_compat.spelling import nearest
from pimms_tf.wording import counted

WHITENING = (
    "is False and scans stay as they are, but the released 2-D programs whitened them whatever was set; write "
    "whitening = True to do likewise"
)
_REQUIRED = {
    "training": ("TRAINING", "NETWORK"),
    "inference": ("INFERENCE", "NETWORK"),
    "evaluation": ("EVALUATION", "INFERENCE", "NETWORK"),
    "export": ("NETWORK",),
}


def check_needs(
    action: str | None,
    task: str,
    part: TaskSection,
    parts: Mapping[str, object],
    found: Mapping[str, IniSection],
    findings: Findings,
) -> None:
    for name in _REQUIRED.get(action, ()):
        if name not in found:
            near = [other for other in found if other not in sections.SYSTEM_SECTIONS and nearest(other, [name])]
            hint = (
                f"did you mean it by [{near[0]}]?"
                if near
                else f"add the line [{name}], nothing else is needed below it"
            )
            if name == "NETWORK" and not near:
                hint = f"add [NETWORK] with a name, one of {', '.join(programs.OUR_NETWORKS)}"
            findings.mistake(f"requires the section [{name}] for {action}, which is not there; {hint}")
    network = parts["network"]
    if "NETWORK" in found and not network.name and action and not findings.has_mistake("NETWORK", "name"):
        findings.mistake(
            f"name is not set in section [NETWORK], which {action} needs; choose one of "
            + ", ".join(programs.OUR_NETWORKS)
        )
    if network.name and (complaint := programs.network_complaint(network.name)):
        findings.mistake_at("NETWORK", "name", network.name, complaint)
    needed = {
        "training": ("image",) if task == "CLASSIFICATION" else ("image", "label"),
        "inference": ("image",),
        "evaluation": ("label",),
    }
    for key in needed.get(action, ()):
        if not getattr(part, key) and not findings.has_mistake(task, key):
            findings.mistake(f"{key} is not set in section [{task}], which {action} needs; name an input section there")
    classes = "num_classes_seg" if task == "MULTITASK" else "num_classes"
    count = getattr(part, classes)
    if findings.has_mistake(task, classes):
        return
    if action in ("training", "inference") and count == -1 and task != "CLASSIFICATION":
        findings.mistake(
            f"{classes} is not set in section [{task}], which {action} needs; give the number of label values, "
            "background included"
        )
    elif count < 2 and count != -1:
        findings.mistake_at(task, classes, str(count), "is too small; background counts as a class, so give 2 or more")


def as_the_program(
    application: str | None, task: str, part: TaskSection, parts: Mapping[str, object], findings: Findings
) -> tuple[TaskSection, dict[str, object]]:
    """Returns the values with those in place that the program after -a had whatever was set, each with a remark.

    So an unchanged command line runs what it ran. A value that is missing or faulty stays so.
    """
    parts = dict(parts)
    for section, key, value, without in programs.FIXED_BY_PROGRAM.get(application, ()):
        values = part if section == task else parts[section.lower()]
        given = getattr(values, key)
        is_held = without and getattr(values, without)
        if given == value or given == "" or is_held or findings.has_mistake(section, key):
            continue
        findings.remark(
            section,
            key,
            f"is taken as {shown(value)}, not {shown(given)}, because the program -a {application} did so whatever was "
            f"set; -a {programs.APPLICATION_OF_SECTION[task]} takes what is set",
        )
        findings.origins[section, key] = "-a"
        values = dataclasses.replace(values, **{key: value})
        if section == task:
            part = values
        else:
            parts[section.lower()] = values
    return part, parts


def remark_on_idle_values(
    task: str,
    part: TaskSection,
    parts: Mapping[str, object],
    findings: Findings,
) -> None:
    """Adds remarks on values that other values leave without effect, or that the released programs took otherwise."""
    network = parts["network"]
    for key in ("label", "sampler", "inferred", "modalities"):
        named = getattr(part, key, ())
        if len(named) > 1:
            findings.remark(task, key, f"names {len(named)} sections, of which only the first, {named[0]}, is used")
    if parts["training"].patience != TrainingSection().patience and not parts["pimms"].early_stopping:
        findings.remark("TRAINING", "patience", "has no effect without early_stopping = True in [PIMMS]")
    if network.name.startswith(programs.TWO_DIMENSIONAL) and not network.whitening and not network.normalisation:
        findings.remark("NETWORK", "whitening", WHITENING)


def check_references(
    task: str, part: TaskSection, pimms: PimmsSection, inputs: Mapping[str, InputSection], findings: Findings
) -> None:
    for spec in sections.SPECS[task].values():
        if not spec.names_sections:
            continue
        value = getattr(part, spec.name)
        for name in value:
            if name not in inputs:
                known = nearest(name, inputs)
                hint = f"did you mean {known}?" if known else f"the input sections are {', '.join(inputs) or 'none'}"
                findings.mistake_at(
                    task, spec.name, ", ".join(value), f"names a section [{name}], which is not there; {hint}"
                )
    if pimms.reference and pimms.reference not in part.image:
        findings.mistake_at(
            "PIMMS",
            "reference",
            pimms.reference,
            f"is none of the sections in image; choose one of {', '.join(part.image)}",
        )
    if pimms.image_modalities and len(pimms.image_modalities) != len(part.image):
        findings.mistake_at(
            "PIMMS",
            "image_modalities",
            ", ".join(pimms.image_modalities),
            f"has {counted(len(pimms.image_modalities), 'name')} for {counted(len(part.image), 'section')} in image = "
            f"{', '.join(part.image)}; give one per section",
        )
    for name in pimms.image_modalities if pimms.modalities else ():
        if name not in pimms.modalities:
            findings.mistake_at(
                "PIMMS",
                "image_modalities",
                ", ".join(pimms.image_modalities),
                f"has {name}, which is none of modalities = {', '.join(pimms.modalities)}; add it there or rename it",
            )


def rank_complaint(window: Sequence[int], rank: int) -> str | None:
    """Returns what is wrong with a window of training for a network that looks at `rank` axes, None if nothing is.

    A full length, 0, may turn out as one voxel or as many.
    """
    thick = sum(size > 1 for size in window)
    if thick <= rank <= thick + list(window).count(0):
        return None
    shape = ", ".join(map(str, window))
    if thick > rank:
        return (
            f"spatial_window_size = ({shape}) is a volume, but the network looks at slices; write "
            f"({window[0]}, {window[1]}, 1), or spatial_rank = 3 in [PIMMS] for volumes"
        )
    if rank == 3:
        return f"spatial_window_size = ({shape}) is no volume; give three sizes above 1, or spatial_rank = 2 in [PIMMS]"
    return f"spatial_window_size = ({shape}) is no slice; give two sizes above 1, for example 100, 100, 1"
