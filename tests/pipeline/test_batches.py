import itertools
import re
import threading
import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.data import windows
from pimms_tf.data.augmentation import Augmentation
from pimms_tf.data.loading import SubjectLoader
from pimms_tf.data.subjects import Subject
from pimms_tf.data.windows import crop, foreground_locations, uniform_locations
from pimms_tf.errors import InputError
from pimms_tf.pipeline.batches import training_batches, validation_batches
from pimms_tf.pipeline.cache import CachedLoader
from pimms_tf.pipeline.memory import SubjectCache
from pimms_tf.pipeline.schedule import Schedule
from pimms_tf.pipeline.trays import Batch

PLAIN = {"curriculum": "none"}


def make_subject(index, num_scans=3, shape=(9, 8, 7), label=True):
    """Scan s of subject i is 1000 i + 100 (s + 1) + a ramp below 100, so that a value tells where it is from."""
    ramp = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / np.prod(shape) * 100
    scans = np.stack([1000 * index + 100 * (scan + 1) + ramp for scan in range(num_scans)], axis=-1)
    return Subject(
        subject_id=f"s{index:03}",
        scans=scans.astype(np.float32),
        valid=np.ones(num_scans, bool),
        modality=np.arange(num_scans, dtype=np.int32),
        label=(ramp / 10).astype(np.int32) if label else None,
        affine=np.eye(4),
        original=None,
    )


class Loader:
    """Makes subjects by number, slowly in a random way if asked to, and remembers which."""

    def __init__(self, slow=False, **settings):
        self.slow, self.settings, self.loaded = slow, settings, []

    def __call__(self, index):
        self.loaded.append(index)
        if self.slow:
            time.sleep(np.random.default_rng(len(self.loaded)).uniform(0, 0.004))
        settings = {name: value(index) for name, value in self.settings.items()}
        return make_subject(index, **settings)


def cut(window=(4, 3, 1), num=2):
    return lambda subject, rng: uniform_locations(subject.scans.shape[:3], window, num, rng)


def batches(num, num_subjects=5, loader=None, augment=None, locate=None, batch_size=4, seed=7, threads=2, **options):
    dataset = training_batches(
        range(num_subjects), loader or Loader(), augment, locate or cut(), batch_size, seed, threads, **options
    )
    return [Batch(*(part.numpy() for part in batch)) for batch in itertools.islice(dataset, num)]


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def origins(batch):
    """The subject each window of a batch was cut from."""
    return (batch.scans.reshape(len(batch.scans), -1).max(axis=1) // 1000).astype(int)


EVERYTHING = {
    "augment": Augmentation(flipping_axes=(0, 1), bias_field_range=(-0.1, 0.1)),
    "permute": True,
    "max_slots": 5,
    "curriculum": "uniform",
}


# The schedule


def test_every_epoch_visits_every_subject_once_in_another_order():
    schedule = Schedule(seed=3, num_subjects=6)
    epochs = [[schedule.subject(visit) for visit in range(6 * e, 6 * e + 6)] for e in range(5)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_every_window_of_every_visit_is_delivered_once_and_places_say_where():
    schedule = Schedule(seed=1, num_subjects=3, windows_per_visit=4, visits_per_block=5, num_visits=12)
    delivered = np.concatenate(list(schedule.blocks_from(0)))
    assert sorted(map(tuple, delivered)) == [(visit, row) for visit in range(12) for row in range(4)]
    for visit in range(12):
        places = schedule.places(visit)
        assert delivered[places].tolist() == [[visit, row] for row in range(4)]


@pytest.mark.parametrize("window", [0, 1, 19, 20, 33, 48])
def test_blocks_from_a_window_on_are_the_rest_of_all_blocks(window):
    schedule = Schedule(seed=1, num_subjects=3, windows_per_visit=4, visits_per_block=5, num_visits=12)
    rest = [row for block in schedule.blocks_from(window) for row in block.tolist()]
    assert rest == np.concatenate(list(schedule.blocks_from(0)))[window:].tolist()


def test_windows_of_a_block_are_mixed():
    visits = Schedule(seed=1, num_subjects=9, windows_per_visit=8, visits_per_block=10).windows(0)[:, 0]
    assert (np.diff(visits) != 0).mean() > 0.7


# What is delivered


def test_windows_hold_the_voxels_and_labels_of_their_subject_at_one_place():
    window, subjects = (4, 3, 2), [make_subject(index) for index in range(5)]
    for batch in batches(6, locate=cut(window), **PLAIN):
        assert (batch.scans.shape, batch.label.shape) == ((4, 4, 3, 2, 3), (4, 4, 3, 2))
        for row, origin in enumerate(origins(batch)):
            subject = subjects[origin]
            (start,) = np.argwhere(subject.scans[..., 0] == batch.scans[row, 0, 0, 0, 0])
            location = (*start, *(start + window))
            np.testing.assert_array_equal(batch.scans[row], crop(subject.scans, location))
            np.testing.assert_array_equal(batch.label[row], crop(subject.label, location))


@pytest.mark.parametrize(
    ("window", "space"), [((4, 3, 1), (4, 3)), ((4, 1, 5), (4, 5)), ((4, 3, 2), (4, 3, 2)), ((0, 0, 1), (9, 8))]
)
def test_axes_of_length_one_are_squeezed(window, space):
    dataset = training_batches(range(3), Loader(), None, cut(window), 2, 0, 1, max_slots=4)
    batch = next(iter(dataset))
    assert batch.scans.shape == (2, *space, 4)
    assert batch.label.shape == (2, *space)
    assert [part.dtype for part in batch] == [tf.float32, tf.bool, tf.int32, tf.int32]
    assert isinstance(dataset, tf.data.Dataset)
    assert dataset.element_spec.scans.shape.as_list() == [2, *(None for _ in space), 4]


def test_one_epoch_gives_every_subject_its_windows_and_drops_the_last_incomplete_batch():
    delivered = batches(None, locate=cut(num=3), repeat=False, **PLAIN)
    assert len(delivered) == 5 * 3 // 4
    counts = np.bincount(np.concatenate([origins(batch) for batch in delivered]))
    assert counts.sum() == 12
    assert counts.max() == 3


def test_slices_of_a_read_only_volume_are_looked_at_once_and_give_the_same_windows():
    kept = make_subject(0).scans
    kept.flags.writeable = False
    for window in ((4, 3, 1), (1, 3, 4)):
        for seed in range(5):
            rngs = [np.random.default_rng(seed) for _ in range(2)]
            drawn = [
                foreground_locations(kept.shape[:3], window, 3, scans, rng)
                for scans, rng in zip((kept, kept.copy()), rngs, strict=True)
            ]
            np.testing.assert_array_equal(*drawn)
    assert id(kept) in windows._known_scans
    number = id(kept)
    del kept
    assert number not in windows._known_scans


def test_subjects_are_mixed_within_batches():
    assert np.mean([len(set(origins(batch))) for batch in batches(10, locate=cut(num=4), **PLAIN)]) > 2.5


def test_subjects_of_different_shapes_and_numbers_of_scans_share_batches():
    loader = Loader(num_scans=lambda i: i + 1, shape=lambda i: (9 + i, 8, 7 + i))
    for batch in batches(10, loader=loader, **PLAIN):
        origin = origins(batch)
        assert batch.scans.shape[-1] == origin.max() + 1
        assert batch.valid.sum(axis=1).tolist() == (origin + 1).tolist()
        assert not batch.scans[~np.broadcast_to(batch.valid[:, None, None], batch.scans.shape)].any()
        assert ((batch.modality == -1) == ~batch.valid).all()


def test_slots_are_filled_up_to_max_slots_with_the_modality_of_empty_ones():
    (batch,) = batches(1, max_slots=5, empty_modality=0, **PLAIN)
    assert batch.modality.tolist() == [[0, 1, 2, 0, 0]] * 4
    assert batch.valid.tolist() == [[True, True, True, False, False]] * 4
    assert not batch.scans[..., 3:].any()


def test_absent_scans_stay_zero_and_invalid():
    def loader(index):
        subject = make_subject(index)
        return replace(subject, scans=subject.scans * [1, 0, 1], valid=np.array([True, False, True]))

    for batch in batches(3, loader=loader, curriculum="none"):
        assert batch.valid.tolist() == [[True, False, True]] * 4
        assert not batch.scans[..., 1].any()
        assert batch.scans[..., [0, 2]].all()


def test_scans_are_hidden_per_window_and_never_all():
    delivered = batches(40, curriculum="uniform")
    numbers = np.concatenate([batch.valid.sum(axis=1) for batch in delivered])
    np.testing.assert_allclose(np.bincount(numbers, minlength=4)[1:] / 160, 1 / 3, atol=0.12)
    for batch in delivered:
        np.testing.assert_array_equal(batch.scans.any(axis=(1, 2)), batch.valid)
        assert (batch.modality == [0, 1, 2]).all()


def test_nothing_is_hidden_without_dropping_nor_while_warming_up():
    assert all(batch.valid.all() for batch in batches(20, curriculum="uniform", drop=False))
    delivered = batches(20, curriculum=lambda num_scans: np.eye(num_scans)[num_scans - 1], warmup=6)
    assert all(batch.valid.all() for batch in delivered[:6])
    assert all((batch.valid.sum(axis=1) == 1).all() for batch in delivered[6:])


def test_permuted_slots_move_together_and_include_the_absent_ones():
    orders = set()
    for batch in batches(20, permute=True, max_slots=4, **PLAIN):
        # Scan s holds values from 100 (s + 1) on, and its modality is s.
        held = batch.scans[:, 0, 0] % 1000 // 100 - 1
        np.testing.assert_array_equal(np.where(batch.valid, held, -1), batch.modality)
        np.testing.assert_array_equal(batch.scans.any(axis=(1, 2)), batch.valid)
        orders.update(map(tuple, batch.modality))
    assert len(orders) > 15


def test_augmentation_happens_before_the_windows_are_located():
    def enlarge(subject, rng):
        return replace(subject, scans=np.pad(subject.scans, [(3, 3)] * 3 + [(0, 0)]), label=np.pad(subject.label, 3))

    assert batches(1, augment=enlarge, locate=cut((15, 14, 13)))[0].scans.shape == (4, 15, 14, 13, 3)


def test_windows_of_a_composed_change_are_those_of_the_whole_changed_subject():
    """The same draws, places and slots, whether volumes are computed by the window or before they are cut."""
    augment = Augmentation(
        flipping_axes=(0,), rotation_degrees=(-9, 9), scaling_percentage=(-5, 20), bias_field_range=(-0.1, 0.1)
    )

    def whole(subject, rng):
        moved = augment(subject, rng)
        return replace(moved, scans=np.asarray(moved.scans), label=np.asarray(moved.label))

    options = EVERYTHING | {"locate": cut((4, 3, 2), num=3)}
    by_window, from_whole = (batches(4, **options | {"augment": way}) for way in (augment, whole))
    for one, other in zip(by_window, from_whole, strict=True):
        np.testing.assert_allclose(one.scans, other.scans, rtol=1e-5, atol=1e-5)
        for left, right in zip(one[1:], other[1:], strict=True):
            np.testing.assert_array_equal(left, right)
    assert_equal(by_window, batches(4, **options | {"augment": augment, "threads": 5}))


def test_how_far_the_first_queue_is_filled_can_be_asked():
    dataset = training_batches(range(5), Loader(), None, cut(), 4, 7, 2)
    assert dataset.filled() == (0, 0)
    iterator = iter(dataset)
    next(iterator)
    assert dataset.filled() == (20, 20)  # five batches
    iterator.close()


def test_a_subject_loader_is_asked_for_the_images_and_the_id():
    class Files:
        def __init__(self, index):
            self.subject_id, self.images = f"s{index:03}", {"T1": index}

    class SubjectLoader:
        def load(self, images, subject_id=""):
            assert subject_id == f"s{images['T1']:03}"
            return make_subject(images["T1"])

    dataset = training_batches([Files(index) for index in range(3)], SubjectLoader(), None, cut(), 2, 0, 1)
    assert next(iter(dataset)).scans.shape == (2, 4, 3, 3)


def test_subjects_without_label_get_one_of_zeros_only_if_none_is_required():
    loader = Loader(label=lambda index: False)
    (batch,) = batches(1, loader=loader, label_required=False)
    assert batch.label.shape == (4, 4, 3)
    assert not batch.label.any()


# Repeatable


def test_batches_do_not_depend_on_the_number_of_threads_nor_on_their_timing():
    alone = batches(12, threads=1, **EVERYTHING)
    assert_equal(alone, batches(12, threads=8, loader=Loader(slow=True), cache_bytes=0, **EVERYTHING))
    assert_equal(alone, batches(12, threads=3, loader=Loader(slow=True), prefetch=1, **EVERYTHING))


@pytest.mark.parametrize("start", [0, 3])
def test_two_processes_make_the_halves_of_every_batch_and_load_only_what_is_in_theirs(start):
    loaders = [Loader(), Loader()]
    halves = []
    for (first, stop), loader in zip([(0, 1), (1, 4)], loaders, strict=True):
        options = {**EVERYTHING, "locate": cut(num=1), "batch_size": 4, "seed": 7, "num_threads": 2, "cache_bytes": 0}
        dataset = training_batches(range(40), loader, start=start, repeat=False, **options).rows(first, stop)
        halves.append([Batch(*(part.numpy() for part in batch)) for batch in dataset])
    whole = batches(99, num_subjects=40, locate=cut(num=1), start=start, repeat=False, **EVERYTHING)
    together = [Batch(*map(np.concatenate, zip(*pair, strict=True))) for pair in zip(*halves, strict=True)]
    assert_equal(together, whole)
    # One window a subject; the first is loaded to learn how many windows a visit gives.
    assert [len(set(loader.loaded[1:])) for loader in loaders] == [10 - start, 3 * (10 - start)]
    assert not set(loaders[0].loaded[1:]) & set(loaders[1].loaded[1:])


@pytest.mark.parametrize("rows", [(0, 5), (2, 2), (-1, 2)])
def test_rows_that_a_batch_does_not_have_are_refused(rows):
    dataset = training_batches(range(5), Loader(), None, cut(), 4, 7, 1)
    with pytest.raises(ValueError, match="are not among the 4 of a batch"):
        dataset.rows(*rows)


def test_batches_from_the_cache_of_prepared_scans_are_those_from_files(tmp_path):
    class Files:
        def __init__(self, index):
            self.subject_id, self.images = f"s{index}", {}
            for name, modulus in (("T1", 97), ("T2", 89), ("label", 2)):
                self.images[name] = tmp_path / f"{self.subject_id}_{name}.nii"
                voxels = np.arange(9 * 8 * 7).reshape(9, 8, 7) * (index + 3) % modulus
                nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)), self.images[name])

    subjects = [Files(index) for index in range(4)]
    for augment in (None, Augmentation(flipping_axes=(0, 1), rotation_degrees=(-5, 5))):
        drawn = [
            [
                Batch(*(part.numpy() for part in batch))
                for batch in itertools.islice(
                    training_batches(subjects, loader, augment, cut(), 4, 0, 2, permute=True), 6
                )
            ]
            for loader in (SubjectLoader(), CachedLoader(SubjectLoader(), tmp_path / "cache"))
        ]
        assert_equal(*drawn)


def test_another_seed_gives_other_batches():
    first, second = batches(1, seed=1), batches(1, seed=2)
    assert not np.array_equal(first[0].scans, second[0].scans)


@pytest.mark.parametrize("start", [1, 4, 5, 6, 17])
def test_resuming_gives_the_batches_of_the_uninterrupted_run(start):
    assert_equal(batches(4, start=start, warmup=6, **EVERYTHING), batches(start + 4, warmup=6, **EVERYTHING)[start:])


def test_resuming_loads_nothing_for_what_was_consumed():
    loader = Loader()
    delivered = batches(1, num_subjects=1000, loader=loader, locate=cut(num=1), start=1000, threads=1, cache_bytes=0)
    # One subject to learn the windows' size, then at most the present and the next block of 20.
    assert len(loader.loaded) <= 41
    assert len(delivered) == 1


def test_one_epoch_can_be_resumed_too():
    whole = batches(None, repeat=False, batch_size=3)
    assert_equal(batches(None, repeat=False, batch_size=3, start=2), whole[2:])
    assert batches(None, repeat=False, batch_size=3, start=9) == []


def test_the_subjects_of_any_batch_are_known_without_loading_them():
    loader = Loader()
    dataset = training_batches(range(9), loader, None, cut(), 4, 0, 2, start=3)
    delivered = [Batch(*(part.numpy() for part in batch)) for batch in itertools.islice(dataset, 8)]
    loader.loaded.clear()
    for number, batch in enumerate(delivered):
        assert dataset.subjects_of(3 + number) == sorted(set(origins(batch)))
    assert not loader.loaded


def test_iterating_again_starts_from_the_same_batch_again():
    dataset = training_batches(range(5), Loader(), None, cut(), 4, 0, 2)
    first, second = ([batch.scans.numpy() for batch in itertools.islice(dataset, 3)] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_datasets_derived_from_it_give_the_same_batches():
    dataset = training_batches(range(5), Loader(), None, cut(), 4, 0, 2)
    derived = dataset.map(lambda batch: batch.scans).take(3)
    for scans, batch in zip(derived, dataset, strict=False):
        np.testing.assert_array_equal(scans, batch.scans)


def test_it_can_be_iterated_inside_a_tf_function():
    dataset = training_batches(range(5), Loader(), None, cut(), 4, 0, 2, num_batches=3)

    @tf.function
    def total():
        result = 0.0
        for batch in dataset:
            result += tf.reduce_sum(batch.scans)
        return result

    expected = sum(float(tf.reduce_sum(batch.scans)) for batch in dataset)
    np.testing.assert_allclose(total(), expected, rtol=1e-5)


# Validation


def test_validations_see_the_same_batches_and_load_them_once():
    loader = Loader()
    dataset = validation_batches(range(5), loader, None, cut(), 4, 0, 2, 6)
    passes = [[Batch(*(part.numpy() for part in batch)) for batch in dataset] for _ in range(2)]
    num_loaded = len(loader.loaded)
    assert len(passes[0]) == 6
    assert_equal(*passes)
    assert all(batch.valid.all() for batch in passes[0])
    assert len(list(dataset)) == 6
    assert len(loader.loaded) == num_loaded


def test_an_interrupted_validation_does_not_count_as_seen():
    dataset = validation_batches(range(5), Loader(), None, cut(), 4, 0, 2, 6)
    next(iter(dataset))
    assert len(list(dataset)) == 6


# Threads and memory


def test_cached_subjects_are_loaded_once_and_others_again():
    loader = Loader()
    batches(30, loader=loader)
    assert sorted(loader.loaded) == [0, 1, 2, 3, 4]
    size = make_subject(0).scans.nbytes + make_subject(0).label.nbytes
    loader = Loader()
    batches(30, loader=loader, cache_bytes=2 * size)
    counts = np.bincount(loader.loaded)
    assert sorted(counts)[:2] == [1, 1]
    assert min(sorted(counts)[2:]) > 5


def test_a_cache_keeps_what_fits_read_only_and_equal():
    subject = make_subject(0)
    cache = SubjectCache([0, 1], make_subject, subject.scans.nbytes + subject.label.nbytes)
    assert cache.get(0) is cache.get(0)
    assert cache.get(1) is not cache.get(1)
    np.testing.assert_array_equal(cache.get(0).scans, subject.scans)
    np.testing.assert_array_equal(cache.get(0).label, subject.label)
    assert cache.get(0).weight is None
    with pytest.raises(ValueError, match="read-only"):
        cache.get(0).scans[:] = 0
    cache.clear()
    assert cache.get(1) is cache.get(1)


def test_augmentation_of_a_cached_subject_leaves_it_alone():
    augment = Augmentation(flipping_axes=(0,), scaling_percentage=(0, 20), rotation_degrees=(-5, 5))
    delivered = batches(8, augment=augment, seed=0)
    assert_equal(delivered, batches(8, augment=augment, seed=0, cache_bytes=0))


def threads_of_batches():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pimms-batches")]


def test_giving_up_an_iterator_ends_its_threads_at_once_even_while_loading():
    loading = threading.Event()

    def loader(index):
        if loading.is_set():
            time.sleep(0.5)
        return make_subject(index)

    iterator = iter(training_batches(range(300), loader, None, cut(), 4, 0, 2, cache_bytes=0))
    next(iterator)
    assert threads_of_batches()
    loading.set()
    began = time.perf_counter()
    del iterator
    assert time.perf_counter() - began < 0.4
    for thread in threads_of_batches():
        thread.join(2)
    assert not threads_of_batches()


# Bad input


def refusal(text):
    return pytest.raises(InputError, match=re.escape(text))


def test_a_subject_that_fails_to_load_ends_the_iteration_with_its_own_exception():
    mistake = InputError("t1/s003.nii.gz: has no voxels: export the image again")

    def loader(index):
        if index == 3:
            raise mistake
        return make_subject(index)

    schedule = Schedule(seed=0, num_subjects=40)
    assert schedule.subject(0) != 3
    iterator = iter(training_batches(range(40), loader, None, cut(num=1), 2, 0, 4))
    with pytest.raises(InputError) as caught:
        list(itertools.islice(iterator, 40))
    assert caught.value is mistake


def test_mistakes_of_the_first_subject_are_raised_before_anything_is_iterated():
    def loader(index):
        raise InputError("t1/s000.nii.gz is missing")

    with refusal("t1/s000.nii.gz is missing"):
        training_batches(range(3), loader, None, cut(), 2, 0, 1)


def test_mistakes_that_do_not_name_their_subject_get_its_name():
    with refusal("subject s004: window (20, 20, 1) is larger than volume (9, 8, 7)"):
        batches(1, num_subjects=5, locate=cut((20, 20, 1)), seed=next(s for s in range(99) if first_subject(s) == 4))


def first_subject(seed):
    return Schedule(seed=seed, num_subjects=5).subject(0)


def test_a_derived_dataset_quotes_the_mistake():
    def loader(index):
        if index == 3:
            raise InputError("t1/s003.nii.gz: has no voxels")
        return make_subject(index)

    dataset = training_batches(range(40), loader, None, cut(num=1), 2, 0, 1).take(40)
    with pytest.raises(tf.errors.OpError, match=re.escape("t1/s003.nii.gz: has no voxels")):
        list(dataset)


def test_a_missing_label_is_refused_with_its_subject():
    loader = Loader(label=lambda index: index != 2)
    with refusal("subject s002: there is no label: add its file, or leave the subject out of training"):
        batches(10, loader=loader)


def test_more_scans_than_slots_are_refused_with_the_subject():
    loader = Loader(num_scans=lambda index: 4 if index == 2 else 3)
    with refusal("subject s002: there are 4 scans but max_slots is 3: raise max_slots"):
        batches(10, loader=loader, max_slots=3)


def test_full_length_windows_of_subjects_of_different_shapes_are_refused_in_one_batch_and_fine_alone():
    loader = Loader(shape=lambda index: (9, 8, 7 + index))
    with refusal("give every axis of spatial_window_size a length above 0, or use batch_size = 1"):
        batches(10, loader=loader, locate=cut((4, 4, 0), num=1))
    sizes = {batch.label.shape[3] for batch in batches(10, loader=loader, locate=cut((4, 4, 0), num=1), batch_size=1)}
    assert sizes == {7, 8, 9, 10, 11}


def test_a_varying_number_of_windows_is_our_mistake():
    def locate(subject, rng):
        return cut(num=1 + int(subject.subject_id == "s004"))(subject, rng)

    with pytest.raises(ValueError, match="locate gave"):
        batches(10, locate=locate)


def test_locations_must_be_rows_of_six():
    with pytest.raises(ValueError, match=re.escape("locations must be (n, 6) with n > 0, received (0, 6)")):
        batches(1, locate=cut(num=0))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 0}, "batch_size = 0 is too small: it must be at least 1"),
        ({"threads": 0}, "num_threads = 0 is too small: it must be at least 1"),
        ({"seed": -1}, "seed = -1 is too small: it must be at least 0"),
        ({"start": -1}, "start = -1 is too small: it must be at least 0"),
        ({"warmup": -1}, "warmup = -1 is too small: it must be at least 0"),
        ({"num_subjects": 0}, "there are no subjects to cut windows from"),
        ({"repeat": False, "batch_size": 99}, "5 subjects of 2 windows do not fill one batch of 99: lower batch_size"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, sentence):
    with refusal(sentence):
        batches(1, **changes)


@pytest.mark.slow
def test_a_window_of_a_subject_in_memory_costs_a_fraction_of_a_millisecond():
    shape = (181, 217, 181)
    loader = Loader(shape=lambda index: shape)
    iterator = iter(training_batches(range(2), loader, None, cut((100, 100, 1), num=8), 64, 0, 2, permute=True))
    list(itertools.islice(iterator, 12))
    began = time.process_time()
    list(itertools.islice(iterator, 60))
    # Time of processors, all threads together, so that other work on the machine counts less.
    assert (time.process_time() - began) / (60 * 64) < 600e-6
