"""What viewers of images need: colour tables, and the command lines that open a patient's result in them."""

import shlex
from pathlib import Path

from pimms_tf.clinic.intake import MASK
from pimms_tf.clinic.results import PatientResult, ScanResult
from pimms_tf.data.grids import Grid
from pimms_tf.data.images import Image, write_image
from pimms_tf.files import write_text

FSLEYES_COLOURS, FREEVIEW_COLOURS = "colours.lut", "colours.txt"
REFERENCE = "reference.nii.gz"

# Of classes from 1 on, in turn; told apart with every kind of colour vision.
COLOURS = ((255, 212, 0), (0, 200, 255), (255, 120, 120), (140, 255, 140))


def view_lines(result: PatientResult, folder: Path) -> tuple[str, ...]:
    """Returns command lines that show the mask in a patient's folder over its reference, in FSLeyes and Freeview."""
    folder, reference = Path(folder), _shown(result)
    shown = reference.files[0] if reference.series is None else folder / REFERENCE
    scan, mask, lut, table = (
        shlex.quote(str(path)) for path in (shown, folder / MASK, folder / FSLEYES_COLOURS, folder / FREEVIEW_COLOURS)
    )
    return (
        f"fsleyes {scan} {mask} --overlayType label --lut {lut} --outline",
        f"freeview -v {scan} {mask}:colormap=lut:lut={table}:outline=1",
    )


def write_viewer_files(result: PatientResult, folder: Path) -> tuple[str, ...]:
    """Returns the lines of `view_lines` after the files that they name were written.

    These are a colour table for each program, and `reference.nii.gz` where the reference came as DICOM, whose slices
    the programs do not open one by one.

    Raises:
        OSError: the folder cannot be written.
    """
    folder, reference = Path(folder), _shown(result)
    names = result.class_names[1:] or ("lesion",)
    write_text(folder / FSLEYES_COLOURS, fsleyes_colours(names))
    write_text(folder / FREEVIEW_COLOURS, freeview_colours(names))
    if reference.series is not None and reference.image is not None:
        grid = Grid(reference.image.shape, reference.image.affine)
        write_image(Image(reference.image.data, reference.image.affine, grid), folder / REFERENCE)
    return view_lines(result, folder)


def fsleyes_colours(names: tuple[str, ...]) -> str:
    """Returns a lookup table of FSLeyes for classes from 1 on: number, red, green and blue from 0 to 1, name."""
    lines = [
        f"{number} {red / 255:.5f} {green / 255:.5f} {blue / 255:.5f} {name}"
        for number, name, (red, green, blue) in _rows(names)
    ]
    # FSLeyes passes over the first line when it looks what kind of table this is.
    return "\n".join(("# label red green blue name", *lines)) + "\n"


def freeview_colours(names: tuple[str, ...]) -> str:
    """Returns a colour table of FreeSurfer for classes from 1 on, 0 being the background."""
    lines = [
        f"{number} {name.replace(' ', '-')} {red} {green} {blue} 0" for number, name, (red, green, blue) in _rows(names)
    ]
    return "\n".join(("# number name red green blue transparency", "0 background 0 0 0 0", *lines)) + "\n"


def _shown(result: PatientResult) -> ScanResult:
    """The reference, or, where it came as DICOM and gave no more than its grid, a scan that was used."""
    reference = next(scan for scan in result.scans if scan.is_reference)
    return reference if reference.series is None or reference.image is not None else result.used[0]


def _rows(names: tuple[str, ...]) -> list[tuple[int, str, tuple[int, int, int]]]:
    """At least two: FSLeyes cannot read a table of one row."""
    known = [*names, *(f"class {number}" for number in range(len(names) + 1, 3))]
    return [(number, name, COLOURS[(number - 1) % len(COLOURS)]) for number, name in enumerate(known, start=1)]
