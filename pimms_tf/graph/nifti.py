"""NIfTI-1 files as strings, read and written inside a graph: gzip or not, either byte order, any number of one type.

Nothing is inflated before the size that the file itself tells of is known to be bounded, and no array is made before
header and length fit together. Source: the NIfTI-1 standard, and nibabel where that leaves a choice.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pimms_tf.data.formats import HEADER_TOLERANCE_MM
from pimms_tf.data.grids import MATCH_TOLERANCE_VOXELS
from pimms_tf.graph.checks import checked, listed
from pimms_tf.graph.volume import MOST_VOXELS

_HEADER = 348
_MOST_DEFLATED = 1032  # bytes that one byte of a gzip stream can stand for
_MOST_BYTES = 2**31 - 2**20  # of an inflated file, as the operation that inflates has it
_MOST_BEHIND = 2**20  # bytes behind the voxels, as data.formats allows
_TYPES = {2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64", 256: "int8"} | {
    512: "uint16",
    768: "uint32",
    1024: "int64",
    1280: "uint64",
}
_READ_AS = {"uint32": "int32", "uint64": "int64"}  # which the operation does not read


class Files(NamedTuple):
    """The scans of some files, and where they lie."""

    scans: tf.Tensor  # (scan, x, y, z) float32, scaled as their headers say
    affine: tf.Tensor  # (4, 4) float64 in mm, of the reference
    header: tf.Tensor  # 348 bytes of the reference, a string
    is_big: tf.Tensor  # whether its numbers begin with the larger byte


def read_files(files: tf.Tensor) -> Files:
    """The scans in files (scan,) strings, that must lie on one grid; InvalidArgument if one cannot be used.

    The file that becomes the reference is chosen by its content, so that the order of the files changes nothing.
    """
    files = checked(files, tf.size(files) > 0, "there is no file; give at least one .nii or .nii.gz")
    places = tf.range(tf.size(files))
    raw = tf.map_fn(lambda place: _inflated(files[place], place), places, fn_output_signature=tf.string)
    header = _Header(raw)
    raw = header.sound(raw)
    reference = tf.argmin(tf.strings.to_hash_bucket_fast(files, 2**62), output_type=tf.int32)
    affines = tf.map_fn(header.affine, places, fn_output_signature=tf.float64)
    raw = _on_one_grid(raw, header.shape, affines, reference)
    scans = tf.map_fn(lambda place: header.voxels(raw, place), places, fn_output_signature=tf.float32)
    scans = tf.ensure_shape(tf.transpose(scans, (0, 3, 2, 1)), (None, None, None, None))
    return Files(scans, affines[reference], tf.strings.substr(raw[reference], 0, _HEADER), header.is_big[reference])


def mask_files(mask: tf.Tensor, files: Files) -> tf.Tensor:
    """A string: the NIfTI-1 file of a mask (x, y, z) uint8 on the grid of the reference.

    The header is that of the reference, whatever programs make of it, less names and remarks, which may be of a person.
    """

    def number(value: int, kind: str) -> tf.Tensor:
        little, big = (np.array(value, order + kind).tobytes() for order in ("<", ">"))
        return tf.where(files.is_big, tf.constant(big), tf.constant(little))

    def kept(start: int, stop: int) -> tf.Tensor:
        return tf.strings.substr(files.header, start, stop - start)

    parts = [
        kept(0, 4),
        tf.constant(bytes(36 - 4)),  # data_type and db_name
        kept(36, 56),
        tf.constant(bytes(70 - 56)),  # intent
        number(2, "i2"),
        number(8, "i2"),
        kept(74, 108),
        number(352, "f4"),
        number(1, "f4"),
        number(0, "f4"),
        kept(120, 124),
        tf.constant(bytes(148 - 124)),  # display range, times
        tf.constant(b"pimms-tf mask".ljust(228 - 148, b"\0")),
        tf.constant(bytes(24)),  # aux_file
        kept(252, 328),
        tf.constant(bytes(16)),  # intent_name
        tf.constant(b"n+1\0" + bytes(4)),
    ]
    count = tf.size(mask)
    # There is no operation that makes bytes of numbers, but a serialised tensor ends in them.
    serialised = tf.io.serialize_tensor(tf.transpose(mask))
    return tf.strings.join([*parts, tf.strings.substr(serialised, tf.strings.length(serialised) - count, count)])


def _inflated(file: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The file itself, or what a gzip file holds."""

    def inflate() -> tf.Tensor:
        length = tf.strings.length(file)
        told = tf.io.decode_raw(tf.strings.substr(file, length - 4, 4), tf.int32)[0]  # bytes, as a gzip file ends
        told = tf.cast(tf.bitcast(told, tf.uint32), tf.int64)
        text = (_named(place), " claims to hold ", told, " bytes, which its ", length, " cannot be; send it again")
        possible = tf.logical_and(told <= _MOST_BYTES, told <= _MOST_DEFLATED * tf.cast(length, tf.int64))
        whole = tf.io.decode_compressed(checked(file, possible, *text), compression_type="GZIP")
        found = tf.cast(tf.strings.length(whole), tf.int64)
        text = (_named(place), " holds ", found, " bytes instead of ", told, ", so it is damaged; send it again")
        return checked(whole, found == told, *text)

    is_gzip = tf.logical_and(tf.strings.substr(file, 0, 2) == b"\x1f\x8b", tf.strings.length(file) >= 18)
    return tf.cond(is_gzip, inflate, lambda: file)


class _Header:
    """The numbers in the headers of files (scan,), each (scan, …)."""

    def __init__(self, raw: tf.Tensor) -> None:
        self._raw, self.length = raw, tf.cast(tf.strings.length(raw), tf.int64)
        self.is_big = self._decoded(tf.int32, little=False)[:, 0] == _HEADER
        self.dim = tf.cast(self._numbers(tf.int16)[:, 20:28], tf.int64)
        self.datatype = tf.cast(self._numbers(tf.int16)[:, 35], tf.int64)
        codes = tf.cast(self._numbers(tf.int16)[:, 126:128], tf.int32)
        self._qform_code, self._sform_code = codes[:, 0], codes[:, 1]
        floats = self._numbers(tf.float32)
        self._pixdim, self._offset, self._scaling = floats[:, 19:27], floats[:, 27], floats[:, 28:30]
        self._quaternion, self._origin, self._rows = floats[:, 64:67], floats[:, 67:70], floats[:, 70:82]
        self._units = tf.cast(self._decoded(tf.uint8)[:, 123], tf.int32) % 8
        axes = tf.range(1, 8, dtype=tf.int64) <= self.dim[:, :1]
        self._lengths = tf.where(axes, self.dim[:, 1:], tf.ones_like(self.dim[:, 1:]))
        self.shape = tf.cast(self._lengths[:, :3], tf.int32)
        codes = tf.constant(list(_TYPES), tf.int64)
        self._type = tf.argmax(tf.cast(self.datatype[:, None] == codes, tf.int32), axis=1, output_type=tf.int32)
        self._size = tf.gather(tf.constant([np.dtype(kind).itemsize for kind in _TYPES.values()], tf.int64), self._type)
        # Bytes before the voxels; 0 is what some programs write for "right behind the header".
        self._begin = tf.cast(tf.where(self._offset > 0, tf.minimum(self._offset, 2.0**31), 352.0), tf.int64)

    def sound(self, raw: tf.Tensor) -> tf.Tensor:
        """The files, once each of them has been found sound."""
        sizes = self._decoded(tf.int32)[:, 0]
        is_nifti = tf.logical_or(sizes == _HEADER, self.is_big)
        magic = tf.strings.substr(tf.strings.join([raw, tf.constant(bytes(352))]), 344, 3)
        count = tf.reduce_prod(tf.cast(self._lengths[:, :3], tf.float64), axis=1)
        end = self._begin + tf.cast(count, tf.int64) * self._size
        slope, inter = self._scaling[:, 0], self._scaling[:, 1]
        qform_used = tf.logical_and(self._sform_code == 0, self._qform_code != 0)
        length_of_quaternion = tf.reduce_sum(tf.square(tf.cast(self._quaternion, tf.float64)), axis=1)
        complaints = (
            (self.length >= 352, (" is no NIfTI file: it has ", self.length, " bytes")),
            (sizes != 540, (" is a NIfTI-2 file; convert it to NIfTI-1",)),
            (is_nifti, (" is no NIfTI-1 file; send whole .nii or .nii.gz files",)),
            (magic != b"ni1", (" is the header of a pair of files; send a single .nii file",)),
            (magic == b"n+1", (" is no NIfTI-1 file, or an old Analyze file; convert it to .nii",)),
            (
                tf.reduce_any(self.datatype[:, None] == tf.constant(list(_TYPES), tf.int64), axis=1),
                (" has voxels of type ", self.datatype, ", which are no integers or real numbers; convert it"),
            ),
            (
                tf.logical_and(self.dim[:, 0] >= 1, self.dim[:, 0] <= 7),
                (" has a damaged header: it tells of ", self.dim[:, 0], " axes"),
            ),
            (
                tf.reduce_all(self._lengths >= 1, axis=1),
                (" has a damaged header: an axis has no voxel or fewer",),
            ),
            (
                tf.reduce_all(self._lengths[:, 3:] == 1, axis=1),
                (" has several times or components; send each of them as a file of its own",),
            ),
            (count <= MOST_VOXELS, (f" tells of more than {MOST_VOXELS} voxels, which are not taken here",)),
            (
                tf.logical_and(self._begin >= 352, end <= self.length),
                (" has ", self.length, " bytes, and its header tells of ", end, "; send it again, whole"),
            ),
            (
                self.length - end <= _MOST_BEHIND,
                (" goes on far behind its last voxel, so its header is wrong; export it again",),
            ),
            (
                tf.logical_or(tf.logical_not(_is_scaling(slope)), tf.math.is_finite(inter)),
                (" has a slope but an intercept that is no number; export it again",),
            ),
            (
                tf.logical_or(tf.logical_not(qform_used), length_of_quaternion < 1 + 1e-6),
                (" has a qform that is no rotation; export it again",),
            ),
        )
        for fine, parts in complaints:
            place = tf.argmin(tf.cast(fine, tf.int32), output_type=tf.int32)
            texts = [part if isinstance(part, str) else part[place] for part in parts]
            raw = checked(raw, tf.reduce_all(fine), _named(place), *texts)
        return raw

    def affine(self, place: tf.Tensor) -> tf.Tensor:
        """(4, 4) float64 in mm of one file, from the sform, else the qform, else the voxel sizes."""
        pixdim = tf.cast(self._pixdim[place], tf.float64)
        zooms = tf.where(pixdim[1:4] == 0, tf.ones(3, tf.float64), tf.abs(pixdim[1:4]))
        sform = tf.reshape(tf.cast(self._rows[place], tf.float64), (3, 4))
        qform = self._qform(place, zooms, tf.where(pixdim[0] == -1, np.float64(-1), np.float64(1)))
        flipped = zooms * tf.constant([-1.0, 1.0, 1.0], tf.float64)
        centre = (tf.cast(self.shape[place], tf.float64) - 1) / 2
        plain = tf.concat([tf.linalg.diag(flipped), -(centre * flipped)[:, None]], axis=1)
        has_sform, has_qform = self._sform_code[place] != 0, self._qform_code[place] > 0
        found = tf.where(has_sform, sform, tf.where(self._qform_code[place] != 0, qform, plain))
        found = tf.where(has_sform, _repaired(found, qform, has_qform, zooms, self.dim[place, 0]), found)
        per_unit = tf.gather(tf.constant([1.0, 1000.0, 1.0, 0.001, 1.0, 1.0, 1.0, 1.0], tf.float64), self._units[place])
        return tf.concat([found * per_unit, tf.constant([[0.0, 0.0, 0.0, 1.0]], tf.float64)], axis=0)

    def voxels(self, raw: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """(z, y, x) float32 of one of the files, scaled."""
        shape, begin = self.shape[place], self._begin[place]
        count = tf.cast(tf.reduce_prod(shape), tf.int64) * self._size[place]
        data = tf.strings.substr(raw[place], begin, count)
        slope, inter = (tf.cast(self._scaling[place, k], tf.float64) for k in range(2))
        changes = tf.logical_and(_is_scaling(slope), tf.logical_or(slope != 1, inter != 0))

        def read(kind: str) -> tf.Tensor:
            def decoded(little: bool) -> tf.Tensor:
                values = tf.io.decode_raw(data, _READ_AS.get(kind, kind), little_endian=little)
                return tf.bitcast(values, kind) if kind in _READ_AS else values

            values = tf.cond(self.is_big[place], lambda: decoded(False), lambda: decoded(True))
            return tf.cond(
                changes,
                lambda: tf.cast(tf.cast(values, tf.float64) * slope + inter, tf.float32),
                lambda: tf.cast(values, tf.float32),
            )

        values = tf.switch_case(self._type[place], [lambda kind=kind: read(kind) for kind in _TYPES.values()])
        return tf.reshape(values, tf.reverse(shape, [0]))

    def _qform(self, place: tf.Tensor, zooms: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
        b, c, d = tf.unstack(tf.cast(self._quaternion[place], tf.float64))
        rest = 1 - (b * b + c * c + d * d)
        a = tf.where(rest < 3 * float(np.finfo(np.float32).eps), tf.zeros_like(rest), tf.sqrt(tf.maximum(rest, 0)))
        # An axis and an angle: the quaternion need not be of length 1 to the last digit.
        scale = 2 / (a * a + b * b + c * c + d * d)
        rotation = tf.stack(
            [
                [1 - scale * (c * c + d * d), scale * (b * c - a * d), scale * (b * d + a * c)],
                [scale * (b * c + a * d), 1 - scale * (b * b + d * d), scale * (c * d - a * b)],
                [scale * (b * d - a * c), scale * (c * d + a * b), 1 - scale * (b * b + c * c)],
            ]
        )
        steps = rotation * (zooms * tf.stack([1.0, 1.0, side]))
        return tf.concat([steps, tf.cast(self._origin[place], tf.float64)[:, None]], axis=1)

    def _numbers(self, kind: tf.DType) -> tf.Tensor:
        """(scan, number): the headers as numbers of one type, each file in its own byte order."""
        return tf.where(self.is_big[:, None], self._decoded(kind, little=False), self._decoded(kind))

    def _decoded(self, kind: tf.DType, little: bool = True) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(self._raw, 0, 352), kind, little, fixed_length=352)


def _named(place: tf.Tensor) -> tf.Tensor:
    return tf.strings.join(["file ", tf.as_string(place + 1)])


def _is_scaling(slope: tf.Tensor) -> tf.Tensor:
    return tf.logical_and(tf.math.is_finite(slope), slope != 0)


def _repaired(
    sform: tf.Tensor, qform: tf.Tensor, has_qform: tf.Tensor, zooms: tf.Tensor, num_axes: tf.Tensor
) -> tf.Tensor:
    """The sform, unless it contradicts the voxel sizes, see `data.formats.repaired_affine`."""
    norms = tf.norm(sform[:, :3], axis=0)
    known = tf.range(3, dtype=tf.int64) < num_axes
    sound = tf.logical_and(tf.reduce_all(tf.math.is_finite(zooms)), tf.reduce_all(norms > 0))
    differs = tf.reduce_any(tf.logical_and(known, tf.abs(norms - zooms) > HEADER_TOLERANCE_MM))
    factors = tf.where(known, zooms, norms) / tf.where(norms > 0, norms, tf.ones_like(norms))
    rescaled = tf.concat([sform[:, :3] * factors, sform[:, 3:]], axis=1)
    wrong = tf.logical_and(tf.logical_and(sound, differs), num_axes < 5)
    return tf.where(wrong, tf.where(has_qform, qform, rescaled), sform)


def _on_one_grid(raw: tf.Tensor, shapes: tf.Tensor, affines: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """The files, once all of them have been found to lie where the reference does; see `Grid.matches`."""
    fits = tf.reduce_all(shapes == shapes[reference], axis=1)
    place = tf.argmin(tf.cast(fits, tf.int32), output_type=tf.int32)
    text = (" has ", listed(shapes[place]), " voxels and ", _named(reference), " has ", listed(shapes[reference]))
    remedy = "; bring all scans onto one grid first"
    raw = checked(raw, tf.reduce_all(fits), _named(place), *text, remedy)
    ends = tf.constant([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], tf.float64)
    corners = ends * tf.cast(shapes[reference] - 1, tf.float64)
    found = tf.einsum("nij,cj->nci", affines[:, :3, :3], corners) + affines[:, None, :3, 3]
    distance = tf.reduce_max(tf.abs(found - found[reference]), axis=(1, 2))
    smallest = tf.reduce_min(tf.norm(affines[:, :3, :3], axis=1))
    fits = distance <= MATCH_TOLERANCE_VOXELS * smallest
    place = tf.argmin(tf.cast(fits, tf.int32), output_type=tf.int32)
    text = (" and ", _named(reference), " lie in different places although they have as many voxels")
    return checked(raw, tf.reduce_all(fits), _named(place), *text, remedy)
