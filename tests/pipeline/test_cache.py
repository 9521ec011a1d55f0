import io
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from pimms_tf.commands.progress import _LiveLine, progress
from pimms_tf.data.augmentation import Augmentation
from pimms_tf.data.intensity import LabelMapping
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import Subject
from pimms_tf.errors import InputError
from pimms_tf.pipeline import cache, entry, keys, store
from pimms_tf.pipeline.cache import CachedLoader, Prepared, Use
from pimms_tf.pipeline.keys import subject_key
from pimms_tf.pipeline.memory import MAX_MAPPED, SubjectCache
from pimms_tf.pipeline.store import SubjectStore

SHAPE = (9, 8, 7)
AFFINE = np.array([[0, 1.5, 0, -9], [1.2, 0, 0, 4], [0, 0, 2, 1], [0, 0, 0, 1.0]])


def write(path, seed, like=np.int16):
    values = np.random.default_rng(seed).integers(1, 200, SHAPE).astype(like)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """New processes find this module by its name, wherever pytest was started."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def images(tmp_path):
    """T1, T2, a blank FLAIR, a label and a sampling prior of one subject."""
    files = {name: tmp_path / f"s1_{name}.nii.gz" for name in ("T1", "T2", "FLAIR", "label", "sampler")}
    for number, path in enumerate(files.values()):
        write(path, number)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), files["FLAIR"])
    labels = np.random.default_rng(9).integers(0, 2, SHAPE).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, AFFINE), files["label"])
    return files


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


LOADER = SubjectLoader(padding=(2, 1, 0), foreground="mean_plus", multi_is_empty=True, null_class=True)


def files_of(folder):
    return sorted(folder.glob("*.subject"))


def assert_same(one, other, path="subject"):
    """Equal in every bit, type and field, wherever an array lies in memory."""
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes(), path
    elif hasattr(one, "__dataclass_fields__"):
        assert type(one) is type(other), path
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    else:
        assert (type(one), one) == (type(other), other), path


@dataclass(frozen=True)
class Counting:
    """Prepares like LOADER, and says so in a file, so that other processes are counted too."""

    notes: str
    loader: SubjectLoader = LOADER
    seconds: float = 0.0

    def load(self, images, subject_id=""):
        with open(self.notes, "a") as stream:
            stream.write(f"{subject_id} {os.getpid()}\n")
        time.sleep(self.seconds)
        return self.loader.load(images, subject_id)

    def times(self):
        return len(Path(self.notes).read_text().splitlines()) if Path(self.notes).exists() else 0


@pytest.fixture
def counting(tmp_path):
    return Counting(str(tmp_path / "notes"))


# The same subject


@pytest.mark.parametrize(
    "loader",
    [
        LOADER,
        SubjectLoader(),
        SubjectLoader(coefficients=True),
        SubjectLoader(axcodes=None, pixdim_mm=None, whitening=False),
        replace(LOADER, padding_to=(20, 20, 20), padding_mode="constant", modality=(2, 0, 1)),
        replace(LOADER, mapping={name: np.linspace(0, 100, 13) for name in ("T1", "T2", "FLAIR")}),
        replace(LOADER, reference="T2", label=None, weight=None, scans=("T2", "T1")),
        replace(LOADER, label_mapping=LabelMapping((0.0, 1.0), (1, 0)), num_classes=2),
    ],
)
def test_a_subject_from_the_cache_equals_the_uncached_one_in_every_bit_and_field(images, folder, loader):
    expected = loader.load(images, "s1")
    for _ in range(3):  # prepared, found by the same loader, found by another one
        for cached in (CachedLoader(loader, folder), CachedLoader(loader, folder)):
            assert_same(cached.load(images, subject_id="s1"), expected)
    assert len(files_of(folder)) == 1


def test_flat_images_headers_and_absent_maps_survive(tmp_path, folder):
    path = tmp_path / "t1.nii"
    image = nib.Nifti1Image(np.random.default_rng(0).random((6, 5)).astype(np.float32), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(np.diag([1.2, 1.5, 2, 1]), 3)
    nib.save(image, path)
    loader = SubjectLoader()
    assert_same(CachedLoader(loader, folder).load({"T1": path}), loader.load({"T1": path}))
    assert_same(CachedLoader(loader, folder).load({"T1": path}), loader.load({"T1": path}))


def test_volumes_are_read_only_maps_whose_slices_are_short_reads_and_small_arrays_are_ones_own(images, folder):
    subject = CachedLoader(LOADER, folder).load(images, "s1")
    for volume in (subject.scans, subject.label, subject.weight):
        assert isinstance(volume, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            volume[:] = 0
    assert subject.scans[:, :, 3, 1].flags.c_contiguous
    assert subject.label[:, :, 3].flags.c_contiguous
    subject.valid[:] = False
    subject.affine[:] = 0
    assert CachedLoader(LOADER, folder).load(images, "s1").valid.any()


@pytest.mark.parametrize("coefficients", [False, True])
def test_augmentation_works_on_mapped_subjects(images, folder, coefficients):
    change = Augmentation(flipping_axes=(0,), rotation_degrees=(-5, 5), scaling_percentage=(-5, 5))
    loader = replace(LOADER, coefficients=coefficients)
    rotated = change(CachedLoader(loader, folder).load(images, "s1"), np.random.default_rng(1))
    expected = change(LOADER.load(images, "s1"), np.random.default_rng(1))
    for name in ("scans", "label", "weight"):
        assert_same(np.asarray(getattr(rotated, name)), np.asarray(getattr(expected, name)))


# Prepared once, and anew after any change


def test_a_subject_is_prepared_once_per_content_and_settings(images, folder, counting):
    for _ in range(3):
        CachedLoader(counting, folder).load(images, "s1")
    assert counting.times() == 1
    CachedLoader(counting, folder).load(images, "s2")  # messages and modality lists know subjects by name
    assert counting.times() == 2


def test_files_of_other_names_and_places_with_equal_bytes_are_found(images, folder, counting, tmp_path):
    CachedLoader(counting, folder).load(images, "s1")
    (tmp_path / "elsewhere").mkdir()
    moved = {name: path.rename(tmp_path / "elsewhere" / path.name) for name, path in images.items()}
    CachedLoader(counting, folder).load(moved, "s1")
    assert counting.times() == 1


@pytest.mark.parametrize("section", ["T1", "label", "sampler"])
@pytest.mark.parametrize("settled", [False, True])
def test_a_file_changed_within_its_size_and_time_is_noticed_at_once(images, folder, section, settled, monkeypatch):
    raw = images[section].with_suffix("")
    nib.save(nib.load(images[section]), raw)
    images[section] = raw
    if settled:  # the files are old, and their hashes are remembered
        for path in images.values():
            os.utime(path, (1e9, 1e9))
        now = time.time_ns()
        monkeypatch.setattr(keys.time, "time_ns", lambda: now + 10**10)
    loader = CachedLoader(LOADER, folder)
    before, times = loader.load(images, "s1"), raw.stat()
    with raw.open("r+b") as stream:
        stream.seek(352)
        stream.write(bytes(1 - value % 2 for value in stream.read(64)))
    os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (raw.stat().st_size, raw.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after = loader.load(images, "s1")
    assert_same(after, LOADER.load(images, "s1"))
    changed = {"T1": "scans", "label": "label", "sampler": "weight"}[section]
    assert not np.array_equal(getattr(before, changed), getattr(after, changed))


CHANGED = {
    "axcodes": ("R", "A", "S"),
    "pixdim_mm": {"T1": (1.0, 1.0, 2.0)},
    "padding": (2, 1, 1),
    "mapping": {"T1": np.arange(13.0), "T2": np.arange(13.0)},
    "foreground": "threshold_plus",
    "whitening": False,
    "scans": ("T2", "T1"),
    "modality": (3, 2, 1),
    "label": None,
    "weight": None,
    "modality_image": "T2",
    "null_class": False,
    "orders": {"T1": 1},
    "loader": "simpleitk",
    "fusion": "or",
    "multi_is_empty": False,
    "norm_type": "quartile",
    "cutoff": (0.02, 0.99),
    "padding_mode": "constant",
    "padding_to": (20, 20, 20),
    "label_mapping": LabelMapping((0.0,), (0,)),
    "modality_mapping": LabelMapping((0.0,), (0,)),
    "num_classes": 5,
    "require_label": True,
    "reference": "T1",
    "keep_zeros": False,
    "far_plane": "zeroed",
    "zero_background": True,
    "blank_outside": True,
    "coefficients": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(SubjectLoader)])
def test_every_setting_is_part_of_the_key(images, name):
    assert name in CHANGED, "a new setting: give it a value that differs from its default"
    changed = replace(LOADER, **{name: CHANGED[name]})
    assert subject_key(changed, images, "s1") != subject_key(LOADER, images, "s1")


def test_settings_that_print_alike_differ(images):
    one = np.linspace(0, 100, 13)
    other = one.copy()
    other[5] = np.nextafter(other[5], 200)
    values = [one, other, one.astype(np.float32), one[:12], None]
    keys = {subject_key(replace(LOADER, mapping={"T1": value}), images, "s1") for value in values}
    keys |= {subject_key(replace(LOADER, num_classes=value), images, "s1") for value in (1, 1.0, True, "1", None)}
    assert len(keys) == 10


def test_the_order_in_which_a_mapping_lists_its_keys_does_not_matter_but_that_of_the_files_may(images):
    one, other = {"T1": 1, "T2": 2}, {"T2": 2, "T1": 1}
    assert subject_key(replace(LOADER, orders=one), images, "") == subject_key(
        replace(LOADER, orders=other), images, ""
    )
    turned = dict(reversed(images.items()))  # slots follow the order of the files
    assert subject_key(LOADER, turned, "") != subject_key(LOADER, images, "")


def test_a_change_of_the_code_or_a_library_makes_other_keys(images, monkeypatch):
    before = subject_key(LOADER, images, "")
    for name, value in (("__version__", "0"), ("MAGIC", b"another format")):
        with monkeypatch.context() as patch:
            patch.setattr(keys.pimms_tf if name == "__version__" else keys, name, value)
            keys._code.cache_clear()
            assert subject_key(LOADER, images, "") != before
    keys._code.cache_clear()
    assert subject_key(LOADER, images, "") == before


def test_files_that_the_loader_does_not_look_at_do_not_matter(images, folder, counting):
    loader = replace(counting, loader=replace(LOADER, scans=("T1",), label=None, weight=None))
    only = replace(LOADER, scans=("T1",), label=None, weight=None)
    key = subject_key(only, images, "")
    write(images["T2"], 77)
    assert subject_key(only, images, "") == key
    assert loader.times() == 0


def test_pipes_are_never_opened(tmp_path):
    for name in ("T1.nii", "T1.nrrd"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(OSError, match="is no regular file"):
            subject_key(SubjectLoader(), {"T1": tmp_path / name}, "s1")


def test_the_other_half_of_a_pair_matters(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones(SHAPE, np.int16), AFFINE), tmp_path / "t1.img")
    keys = [subject_key(LOADER, {"T1": tmp_path / name}, "") for name in ("t1.img", "t1.hdr")]
    with (tmp_path / "t1.hdr").open("r+b") as stream:
        stream.seek(80)
        stream.write(b"\x01\x02\x03")
    assert not {subject_key(LOADER, {"T1": tmp_path / name}, "") for name in ("t1.img", "t1.hdr")} & set(keys)


def test_headers_that_point_to_other_files_are_not_trusted(tmp_path, folder):
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((4, 5, 6)).astype(np.float32))
    for name, is_cached in (("a.mha", True), ("b.mhd", False), ("c.nrrd", True), ("d.nhdr", False)):
        sitk.WriteImage(image, str(tmp_path / name))
        assert (subject_key(LOADER, {"T1": tmp_path / name}, "") is not None) == is_cached, name
    loader = SubjectLoader(label=None)
    assert_same(CachedLoader(loader, folder).load({"T1": tmp_path / "b.mhd"}), loader.load({"T1": tmp_path / "b.mhd"}))
    assert not files_of(folder)


@dataclass(frozen=True)
class Rewriting:
    """A file is written while it is read."""

    loader: SubjectLoader = LOADER

    def load(self, images, subject_id=""):
        subject = self.loader.load(images, subject_id)
        write(images["T1"], 99)
        return subject


def test_what_was_read_while_a_file_changed_is_not_stored(images, folder):
    assert CachedLoader(Rewriting(), folder).load(images, "s1").scans.any()
    assert not files_of(folder)


# Damage


def spoilt(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    os.utime(path, (1e9, entry.STAMP_S))  # a disk error leaves no traces


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.clear(),
        lambda content: content.__delitem__(slice(20, None)),
        lambda content: content.__delitem__(slice(len(content) - 5000, None)),
        lambda content: content.extend(b"more"),
        lambda content: content.__setitem__(40, content[40] ^ 1),
        lambda content: content.__setitem__(12, 255),
        lambda content: content.__setitem__(0, 0),
    ],
    ids=["empty", "20 bytes", "truncated", "longer", "header", "length", "magic"],
)
def test_a_damaged_entry_is_made_again(images, folder, counting, change, caplog):
    CachedLoader(counting, folder).load(images, "s1")
    (path,) = files_of(folder)
    spoilt(path, change)
    assert_same(CachedLoader(counting, folder).load(images, "s1"), LOADER.load(images, "s1"))
    assert counting.times() == 2
    assert "it is made again" in caplog.text
    CachedLoader(counting, folder).load(images, "s1")
    assert counting.times() == 2


def test_an_entry_that_somebody_wrote_into_is_made_again(images, folder, counting):
    CachedLoader(counting, folder).load(images, "s1")
    (path,) = files_of(folder)
    with path.open("r+b") as stream:
        stream.seek(-100, os.SEEK_END)
        stream.write(b"\xff" * 50)
    assert_same(CachedLoader(counting, folder).load(images, "s1"), LOADER.load(images, "s1"))
    assert counting.times() == 2


def test_the_entry_of_something_else_is_not_taken(images, folder, counting):
    CachedLoader(counting, folder).load(images, "s1")
    (path,) = files_of(folder)
    path.rename(path.with_name(f"{subject_key(counting, images, 's2')}.subject"))
    assert CachedLoader(counting, folder).load(images, "s2").subject_id == "s2"
    assert counting.times() == 2


def test_what_a_crash_left_behind_is_cleared_away_later(images, folder, monkeypatch):
    CachedLoader(LOADER, folder).load(images, "s1")
    scratch = folder / ".abc.subject.x7_k2abc"
    scratch.mkdir()
    (scratch / "abc.subject").write_bytes(b"half")
    CachedLoader(LOADER, folder)
    assert scratch.exists()  # another process may be writing there now
    now = time.time()
    monkeypatch.setattr(keys.time, "time", lambda: now + 4000)
    CachedLoader(LOADER, folder)
    assert not scratch.exists()
    assert len(files_of(folder)) == 1


def test_entries_hold_no_pickles_and_their_header_is_json(images, folder):
    CachedLoader(LOADER, folder).load(images, "s1")
    content = files_of(folder)[0].read_bytes()
    length = int.from_bytes(content[8:16], "little")
    header = json.loads(content[16 : 16 + length])
    assert header["subject"]["fields"]["subject_id"] == "s1"
    assert all(each["offset"] % 4096 == 0 for each in header["arrays"])


# Several at once


def prepare_in_process(notes, images, folder, start):
    start.wait(20)
    assert_same(CachedLoader(Counting(notes, seconds=0.2), folder).load(images, "s1"), LOADER.load(images, "s1"))


def test_two_processes_that_prepare_one_subject_at_once_are_both_served(images, folder, counting):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    processes = [
        spawn.Process(target=prepare_in_process, args=(counting.notes, images, folder, start)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    time.sleep(1.5)
    start.set()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(folder.iterdir())) == 1
    assert_same(CachedLoader(counting, folder).load(images, "s1"), LOADER.load(images, "s1"))


def test_threads_may_share_a_loader(images, folder, counting):
    loader = CachedLoader(counting, folder)
    with ThreadPoolExecutor(4) as threads:
        subjects = list(threads.map(lambda number: loader.load(images, f"s{number % 3}"), range(24)))
    for number, subject in enumerate(subjects):
        assert_same(subject, LOADER.load(images, f"s{number % 3}"))
    assert loader.use().hits + loader.use().misses == 24


# Room


@pytest.fixture
def sized(images, tmp_path):
    """Bytes for a number of entries of the subject of `images`, and a bit."""
    CachedLoader(LOADER, tmp_path / "another cache").load(images, "s0")
    size = files_of(tmp_path / "another cache")[0].stat().st_size
    return lambda num: num * size + size // 2


def test_the_folder_keeps_to_its_limit_and_the_least_recently_used_entries_go_first(images, folder, sized):
    for number in range(3):
        CachedLoader(LOADER, folder, sized(3)).load(images, f"s{number}")
    CachedLoader(LOADER, folder, sized(3)).load(images, "s0")
    CachedLoader(LOADER, folder, sized(3)).load(images, "s3")
    held = [f"s{n}" for n in range(4) if (folder / f"{subject_key(LOADER, images, f's{n}')}.subject").exists()]
    assert held == ["s0", "s2", "s3"]
    assert CachedLoader(LOADER, folder).room().num_bytes <= sized(3)


def test_an_entry_in_use_stays_and_one_no_longer_in_use_goes(images, folder, sized):
    mapped = CachedLoader(LOADER, folder, sized(1)).load(images, "s0")
    CachedLoader(LOADER, folder, sized(1)).load(images, "s1")
    assert SubjectStore(folder, sized(1)).get(subject_key(LOADER, images, "s0")) is not None
    assert_same(mapped, LOADER.load(images, "s0"))
    del mapped
    CachedLoader(LOADER, folder, sized(1)).load(images, "s1")
    assert SubjectStore(folder, sized(1)).get(subject_key(LOADER, images, "s0")) is None
    assert len(files_of(folder)) == 1


def test_a_mapped_entry_outlives_its_file(images, folder):
    mapped = CachedLoader(LOADER, folder).load(images, "s0")
    files_of(folder)[0].unlink()
    assert_same(mapped, LOADER.load(images, "s0"))


def test_a_run_does_not_push_out_what_it_needs_again(images, folder, sized, counting, caplog):
    loader = CachedLoader(counting, folder, sized(2))
    for _ in range(3):
        for number in range(4):
            assert loader.load(images, f"s{number}").subject_id == f"s{number}"
    assert counting.times() == 2 + 2 * 3
    assert loader.use() == Use(hits=4, misses=8, uncached=6)
    assert caplog.text.count("is full with its") == 1
    assert "[PIMMS] cache_gib" in caplog.text


def test_some_of_the_disk_is_left_free(images, folder, monkeypatch):
    monkeypatch.setattr(store, "RESERVED_BYTES", 2**60)
    assert CachedLoader(LOADER, folder).load(images, "s0").subject_id == "s0"
    assert not files_of(folder)


def test_entries_are_their_owners_alone(images, folder):
    CachedLoader(LOADER, folder).load(images, "s1")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files_of(folder)[0].stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_made_is_reported_once_and_done_without(images, tmp_path, counting, caplog):
    (tmp_path / "file").write_text("no folder")
    loader = CachedLoader(counting, tmp_path / "file" / "cache")
    for _ in range(2):
        assert_same(loader.load(images, "s1"), LOADER.load(images, "s1"))
    assert counting.times() == 2
    (record,) = [record for record in caplog.records if "cannot be written" in record.message]
    assert "[PIMMS] cache" in record.message


def test_a_read_only_folder_still_gives_what_it_has(images, folder, counting, caplog, monkeypatch):
    CachedLoader(counting, folder).load(images, "s1")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(store, "write_entry", refuse)  # modes do not stop an administrator
    loader = CachedLoader(counting, folder)
    loader.load(images, "s1")
    assert counting.times() == 1
    for _ in range(2):
        assert_same(loader.load(images, "s2"), LOADER.load(images, "s2"))
    assert caplog.text.count("cannot be written") == 1


# What is told


def test_reports_count_subjects_and_the_log_names_folder_and_sizes(images, folder, caplog):
    caplog.set_level(logging.INFO)
    CachedLoader(LOADER, folder).load(images, "s0")
    reports: list[Prepared] = []
    loader = CachedLoader(LOADER, folder, num_subjects=2, report=reports.append)
    for name in ("s0", "s1", "s0", "s1"):
        loader.load(images, name)
    assert [(each.done, each.total, each.subject_id, each.found) for each in reports] == [
        (1, 2, "s0", True),
        (2, 2, "s1", False),
    ]
    loader.close()
    assert f"cache of prepared scans {folder}: 3 found, 1 prepared, 2 entries, 0.00 of 32 GiB" in caplog.text


def test_warnings_are_repeated_once_where_the_subject_comes_from_the_cache(images, folder, caplog):
    loader = replace(LOADER, label_mapping=LabelMapping((0.0,), (0,)))
    for _ in range(2):
        caplog.clear()
        cached = CachedLoader(loader, folder)
        cached.load(images, "s1")
        cached.load(images, "s1")
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("pimms_tf.data.labels", "WARNING")
        assert "that the mapping does not list; they become 0" in record.message


def test_mistakes_are_those_of_the_loader_and_nothing_is_stored(images, folder, tmp_path):
    missing = images | {"T1": tmp_path / "nobody.nii.gz"}
    for loader in (LOADER, CachedLoader(LOADER, folder)):
        with pytest.raises(InputError, match=re.escape("nobody.nii.gz: does not exist")):
            loader.load(missing, subject_id="s1")
    images["T1"].write_bytes(b"no image")
    with pytest.raises(InputError, match=re.escape("s1_T1.nii.gz: is no image or is damaged")):
        CachedLoader(LOADER, folder).load(images, "s1")
    assert not files_of(folder)


def test_a_loader_with_a_setting_that_has_no_hash_is_our_mistake(images, folder):
    with pytest.raises(TypeError, match="a setting of type object has no place in the key"):
        CachedLoader(replace(LOADER, fusion=object()), folder).load(images)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (None, lambda folder: cache.default_folder()),
        ("off", lambda folder: None),
        ("False", lambda folder: None),
        ("scans", lambda folder: folder / "scans"),
        ("/elsewhere/scans", lambda folder: Path("/elsewhere/scans")),
    ],
)
def test_the_configuration_names_a_folder_or_switches_the_cache_off(study, monkeypatch, word, expected):
    from niftynet_compat import load_config
    from pimms_tf.study import cohort

    made = []
    monkeypatch.setattr(cohort, "CachedLoader", lambda *args, **options: made.append((*args, options)) or io.BytesIO())
    study.write(PIMMS={"cache": word, "cache_gib": 1.5})
    with cohort.caching(LOADER, load_config(study.folder / "x.ini"), 7) as found:
        assert (found is LOADER) == (expected(study.folder) is None)
    if expected(study.folder) is not None:
        assert found.closed
        ((loader, folder, limit, options),) = made
        assert (loader, folder, limit) == (LOADER, expected(study.folder), 1.5 * 2**30)
        assert (options["num_processes"], options["num_subjects"]) == (2, 7)


def test_the_default_folder_is_that_of_the_user_for_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "pimms-tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default_folder() == tmp_path / "home" / ".cache" / "pimms-tf"


def test_lines_tell_of_subjects_that_took_a_while(capsys):
    with progress(100) as report:
        report.prepared(Prepared(1, 3, "s0", True, 0.001))
        report.prepared(Prepared(2, 3, "s1", False, 2.04))
    assert capsys.readouterr().out == "prepared s1, 2 of 3 subjects (2.0s)\n"


def test_a_live_line_counts_subjects_until_all_are_there():
    line = _LiveLine(100, ())  # not begun: a terminal is somebody else's test
    shown = next(task for task in line._progress.tasks if task.id == line._preparing)
    assert not shown.visible
    line.prepared(Prepared(1, 2, "s0", True, 0.001))
    assert (shown.completed, shown.total, shown.visible) == (1, 2, True)
    line.prepared(Prepared(2, 2, "s1", False, 2.04))
    assert not shown.visible


# Mapped subjects in the pipeline


def test_mapped_subjects_stay_open_beside_the_memory_limit_but_not_without_end(images, folder, monkeypatch):
    loader = CachedLoader(LOADER, folder)
    subjects = SubjectCache(["s0", "s1", "s2"], lambda name: loader.load(images, name), max_bytes=0)
    assert subjects.get(0) is subjects.get(0)
    assert isinstance(subjects.get(0).scans, np.memmap)
    monkeypatch.setattr("pimms_tf.pipeline.memory.MAX_MAPPED", 1)
    assert subjects.get(1) is not subjects.get(1)
    assert MAX_MAPPED < 1024


# Processes of its own


@dataclass(frozen=True)
class Apart:
    """Says where it prepared, or fails."""

    notes: str
    failure: str = ""

    def load(self, images, subject_id="") -> Subject:
        loaded = sorted({"tensorflow", "keras"} & set(sys.modules))
        Path(self.notes).write_text(f"{os.getpid()} {loaded}")
        if self.failure == "mistake":
            raise InputError("subject s1: the scan is upside down; turn it")
        if self.failure == "bug":
            raise ZeroDivisionError("one over nothing")
        if self.failure == "killed":
            os.kill(os.getpid(), signal.SIGKILL) if os.getppid() == int(os.environ["PIMMS_TEST_PARENT"]) else None
        return LOADER.load(images, subject_id)


def apart(folder, monkeypatch, loader, **options):
    monkeypatch.setenv("PIMMS_TEST_PARENT", str(os.getpid()))
    monkeypatch.setattr(cache, "_SLOW_S", -1.0)
    cached = CachedLoader(loader, folder, num_processes=1, **options)
    cached._is_slow = True
    return cached


def test_processes_prepare_without_tensorflow_and_leave_the_same_subject(images, folder, tmp_path, monkeypatch):
    loader = apart(folder, monkeypatch, Apart(str(tmp_path / "notes")))
    assert_same(loader.load(images, "s1"), LOADER.load(images, "s1"))
    process, loaded = (tmp_path / "notes").read_text().split(" ", 1)
    assert int(process) != os.getpid()
    assert loaded == "[]"
    assert loader.use() == Use(0, 1, 0)
    loader.close()


def test_exceptions_of_processes_come_back_as_they_are_or_with_their_traceback(images, folder, tmp_path, monkeypatch):
    loader = apart(folder, monkeypatch, Apart(str(tmp_path / "notes"), "mistake"))
    with pytest.raises(InputError) as caught:
        loader.load(images, "s1")
    assert str(caught.value) == "subject s1: the scan is upside down; turn it"
    loader._loader = Apart(str(tmp_path / "notes"), "bug")
    with pytest.raises(RuntimeError, match="subject s1 could not be prepared") as caught:
        loader.load(images, "s1")
    assert "in load\n" in str(caught.value)
    assert "ZeroDivisionError: one over nothing" in str(caught.value)
    loader.close()


def test_a_killed_process_is_reported_and_done_without(images, folder, tmp_path, monkeypatch, caplog):
    loader = apart(folder, monkeypatch, Apart(str(tmp_path / "notes"), "killed"))
    assert_same(loader.load(images, "s1"), LOADER.load(images, "s1"))
    assert "was killed" in caplog.text
    loader.close()


ORPHANS = """
import os, sys, time
sys.path[:0] = {path!r}
from test_cache import LOADER, Counting
from pimms_tf.pipeline.cache import CachedLoader
from pathlib import Path

if __name__ == "__main__":
    loader = CachedLoader(Counting({notes!r}, seconds=1000), Path({folder!r}), num_processes=1)
    loader._is_slow = True
    loader.load({images!r}, "s1")
"""


def test_killing_the_parent_leaves_no_orphans(images, folder, tmp_path):
    script, notes = tmp_path / "parent.py", tmp_path / "notes"
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    names = {name: str(path) for name, path in images.items()}
    script.write_text(ORPHANS.format(path=path, notes=str(notes), folder=str(folder), images=names))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    deadline = time.time() + 300
    while time.time() < deadline and not (notes.exists() and notes.read_text().endswith("\n")):
        time.sleep(0.05)
    reader = int(notes.read_text().split()[1])
    assert reader != parent.pid
    parent.kill()
    parent.wait()
    while time.time() < deadline and is_running(reader):
        time.sleep(0.05)
    assert not is_running(reader)


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
