"""The training loop: what it learns, when it saves, why it stops."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.errors import InputError
from pimms_tf.models import build_classifier, build_model
from pimms_tf.pipeline.trays import Batch
from pimms_tf.training import (
    Checkpoints,
    Hooks,
    Intervals,
    Metrics,
    Objective,
    constant,
    latest_iteration,
    make_loss,
    make_train_step,
    make_validation_step,
    mean_metrics,
    new_state,
    train,
)
from pimms_tf.training.steps import trained_variables

ROOT = Path(__file__).parents[2]
SMALL = {"frontend": "highres_1x1", "classifier_features": (4, 8), "classifier_blocks": 1}
NO_WRITER = tf.summary.create_noop_writer()
NEVER = Intervals(summary=0, save=0)
NOTHING = Metrics(*(np.float32(0),) * 5, np.zeros((2, 2), np.int32))


@pytest.fixture
def eagerly():
    """For a handful of steps, tracing the step takes longer than running it as it stands."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make_batch(seed, size=12, num=2, scans=2):
    """Bright discs on noise; scan 1 shows them with the sign turned."""
    rng = np.random.default_rng(seed)
    x, y = np.indices((size, size))
    centres = rng.uniform(size * 0.25, size * 0.75, (num, 2))
    label = np.array([(x - a) ** 2 + (y - b) ** 2 < (size / 6) ** 2 for a, b in centres]).astype(np.int32)
    sign = np.where(np.arange(scans) % 2, -1.0, 1.0)
    images = 3 * label[..., None] * sign + rng.normal(0, 0.5, (num, size, size, scans)) + sign
    modality = np.tile(np.arange(scans, dtype=np.int32) % 2, (num, 1))
    return Batch(*map(tf.constant, (images.astype(np.float32), np.ones((num, scans), bool), modality, label)))


def forever(start=0, **options):
    return (make_batch(number, **options) for number in itertools.count(start))


def make_state(variant="hemis", seed=0, optimiser="adam", freeze="", **choices):
    keras.utils.set_random_seed(seed)
    return new_state(build_model(variant, 2, 2, **SMALL | choices), optimiser, 0.01, freeze)


def weights(state, part=""):
    return {v.path: v.numpy().copy() for v in state.model.variables if part in v.path}


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[path], other[path]) for path in one)


def train_step(state, weight=1.0, **options):
    return make_train_step(state, make_loss("Dice"), constant(weight), **options)


def validation_step(state):
    return make_validation_step(state, make_loss("Dice"), constant(1.0))


def stored(state, folder):
    return Checkpoints(folder, state.model, state.optimizer, state.iteration)


def counting(state, loss=0.5):
    """A step that learns nothing and costs nothing."""

    def step(batch):
        state.iteration.assign_add(1)
        return NOTHING._replace(total_loss=np.float32(loss))

    return step


def run(state, tmp_path, max_iter, every=NEVER, step=None, **options):
    """Trains into tmp_path, by default without learning; options override the arguments of `train`."""
    defaults = {
        "training": itertools.repeat(None) if step is None else forever(int(state.iteration.numpy())),
        "validation": lambda: None,
        "checkpoints": stored(state, tmp_path / "models"),
        "best": stored(state, tmp_path / "best"),
        "writer": NO_WRITER,
    }
    hooks = {name: options.pop(name) for name in ("report", "stopped", "preview") if name in options}
    options |= {"every": every, "max_iter": max_iter, "hooks": Hooks(**hooks)}
    return train(state, step or counting(state), **defaults | options)


class Recorded(list):
    def losses(self, phase="training"):
        return [float(report.metrics.total_loss) for report in self if report.phase == phase]


@pytest.fixture
def reports():
    return Recorded()


def scripted(losses, field="segmentation_loss"):
    """A validation that returns the given losses one after the other."""
    values = iter(losses)
    return lambda: NOTHING._replace(**{field: np.float32(next(values))})


def numbers(folder):
    return sorted(int(file.stem.rpartition("-")[2]) for file in folder.glob("*.index"))


def test_the_default_hemis_learns_a_toy_problem():
    keras.utils.set_random_seed(1)
    model = build_model("hemis", 2, 2)
    state = new_state(model, "adam", 0.01)
    step = make_train_step(state, make_loss("DicePlusXEnt"), constant(0.0))
    validate = make_validation_step(state, make_loss("DicePlusXEnt"), constant(0.0))
    held_out = make_batch(10_000, size=48, num=4)
    losses = [float(step(make_batch(number, size=48, num=2)).total_loss) for number in range(40)]
    metrics = validate(held_out)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert float(metrics.dice) > 0.8


def test_online_learns(tmp_path, reports):
    state = make_state("online")
    step = train_step(state)
    assert run(state, tmp_path, 20, step=step, report=reports.append) == "finished"
    assert np.mean(reports.losses()[-4:]) < 0.7 * np.mean(reports.losses()[:4])


def test_a_classifier_alone_learns_to_name_scans():
    keras.utils.set_random_seed(0)
    state = new_state(build_classifier(2, classifier_features=(4, 8), classifier_blocks=1), "adam", 0.01)
    step = train_step(state, 0.0)  # the schedule is the joint model's
    metrics = [step(make_batch(number)) for number in range(25)]
    assert float(metrics[-1].modality_loss) < 0.3 * float(metrics[0].modality_loss)
    assert float(metrics[-1].total_loss) == float(metrics[-1].modality_loss)
    np.testing.assert_array_equal(metrics[-1].confusion, [[2, 0], [0, 2]])


def test_iterations_are_reported_in_order_and_counted(tmp_path, reports):
    state = make_state()
    run(state, tmp_path, 3, report=reports.append)
    assert [(report.phase, report.iteration) for report in reports] == [("training", i) for i in (1, 2, 3)]
    assert int(state.iteration.numpy()) == 3


def test_checkpoints_are_written_at_intervals_and_at_the_end(tmp_path):
    state = make_state()
    run(state, tmp_path, 7, Intervals(save=3))
    assert numbers(tmp_path / "models") == [3, 6, 7]
    assert latest_iteration(tmp_path / "models") == 7


def test_zero_means_saving_at_the_end_only_and_a_finished_run_saves_nothing_more(tmp_path):
    state = make_state()
    run(state, tmp_path, 2, Intervals(save=0))
    assert numbers(tmp_path / "models") == [2]
    (tmp_path / "models" / "model.ckpt-2.index").unlink()
    assert run(state, tmp_path, 2) == "finished"
    assert numbers(tmp_path / "models") == []


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("variant", ["hemis", "online"])
def test_validation_changes_no_variable(variant):
    state = make_state(variant)
    step = train_step(state)
    validate = validation_step(state)
    step(make_batch(0))
    before = weights(state) | {v.path: v.numpy().copy() for v in state.optimizer.variables}
    first, second = (validate(make_batch(5)) for _ in range(2))
    after = weights(state) | {v.path: v.numpy().copy() for v in state.optimizer.variables}
    assert same(before, after)
    assert int(state.iteration.numpy()) == 1
    assert float(first.total_loss) == float(second.total_loss)


@pytest.mark.usefixtures("eagerly")
def test_validation_comes_at_its_interval_and_uses_moving_statistics(tmp_path, reports):
    state = make_state()
    validate = validation_step(state)
    held_out = [make_batch(100), make_batch(101)]
    everything = {"validation": lambda: mean_metrics(map(validate, held_out)), "report": reports.append}
    run(state, tmp_path, 6, Intervals(validation=2), **everything)
    assert [report.iteration for report in reports if report.phase == "validation"] == [2, 4, 6]
    # One subject alone is judged as it is among others: nothing of the batch enters.
    alone = [validate(Batch(*(part[row : row + 1] for part in held_out[0]))) for row in (0, 1)]
    together = validate(held_out[0])
    assert float(together.segmentation_loss) == pytest.approx(
        np.mean([float(metrics.segmentation_loss) for metrics in alone]), rel=1e-4
    )


def test_the_best_validation_is_kept(tmp_path):
    state = make_state()
    run(state, tmp_path, 5, Intervals(validation=1), validation=scripted([0.9, 0.5, 0.7, 0.4, 0.6]))
    best = stored(state, tmp_path / "best")
    assert latest_iteration(best.folder) == 4
    assert best.validation_loss(4) == pytest.approx(0.4)


def test_a_resumed_run_remembers_the_best(tmp_path):
    state = make_state()
    run(state, tmp_path, 2, Intervals(validation=1), validation=scripted([0.5, 0.3]))
    run(state, tmp_path, 4, Intervals(validation=1), validation=scripted([0.4, 0.35]))
    assert latest_iteration(tmp_path / "best") == 2
    run(state, tmp_path, 5, Intervals(validation=1), validation=scripted([0.2]))
    assert latest_iteration(tmp_path / "best") == 5


def test_a_run_that_starts_over_forgets_the_best_of_the_one_before(tmp_path):
    run(make_state(), tmp_path, 3, Intervals(validation=1), validation=scripted([0.5, 0.3, 0.1]))
    again = make_state(seed=1)
    run(again, tmp_path, 2, Intervals(validation=1), validation=scripted([0.9, 0.8]))
    assert latest_iteration(tmp_path / "best") == 2
    run(again, tmp_path, 3, Intervals(validation=1), validation=scripted([0.85]))
    assert latest_iteration(tmp_path / "best") == 2  # not beaten, though the older run's iteration 3 lies there too


def test_training_stops_early_without_a_new_best(tmp_path):
    state = make_state()
    every = Intervals(validation=2, patience=3, save=100)
    reason = run(state, tmp_path, 50, every, validation=scripted([0.9, 0.5, 0.6, 0.5, 0.7, 0.1]))
    assert reason == "early"
    assert int(state.iteration.numpy()) == 10  # the best at 4 and three validations more
    assert numbers(tmp_path / "models") == [10]


def test_a_classifiers_best_is_that_of_its_own_loss(tmp_path):
    state = new_state(build_classifier(2, classifier_features=(4, 8), classifier_blocks=1), "adam", 0.01)
    losses = scripted([0.5, 0.2, 0.4], "modality_loss")
    run(state, tmp_path, 3, Intervals(validation=1), validation=losses)
    assert latest_iteration(tmp_path / "best") == 2


def test_a_request_to_stop_saves_and_leaves(tmp_path, reports):
    state = make_state()
    reason = run(state, tmp_path, 50, report=reports.append, stopped=lambda: len(reports) == 3)
    assert reason == "interrupted"
    assert numbers(tmp_path / "models") == [3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_before_anything_is_written(tmp_path, bad):
    state = make_state()
    run(state, tmp_path, 2)
    before = {file: file.read_bytes() for file in (tmp_path / "models").iterdir()}
    with pytest.raises(InputError, match=rf"training batch 3 is not a finite number \(total_loss {bad}, .*lower lr"):
        run(state, tmp_path, 10, Intervals(save=1), step=counting(state, bad))
    assert before == {file: file.read_bytes() for file in (tmp_path / "models").iterdir()}


@pytest.mark.parametrize("field", ["total_loss", "segmentation_loss"])
def test_a_validation_loss_that_is_no_number_counts_as_one_of_training(tmp_path, field):
    state = make_state()
    run(state, tmp_path, 2)
    with pytest.raises(InputError, match=r"validation loss at iteration 4 is not a finite .*--starting_iter 3 or less"):
        run(state, tmp_path, 10, Intervals(save=1, validation=2), validation=scripted([np.nan], field))
    assert numbers(tmp_path / "models") == [2, 3]
    assert latest_iteration(tmp_path / "models") == 3
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("keep", [2, 100])
def test_weights_that_are_no_numbers_cost_no_good_checkpoint(tmp_path, keep):
    state = make_state()
    few = Checkpoints(tmp_path / "models", state.model, state.optimizer, state.iteration, max_to_keep=keep)

    def step(batch):
        state.iteration.assign_add(1)
        if int(state.iteration.numpy()) == 4:
            variable = state.model.trainable_variables[3]
            variable.assign(np.full(variable.shape, np.inf))
        return NOTHING._replace(total_loss=np.float32(1e12))

    with pytest.raises(InputError, match=r"checkpoint 4 is not written into .*, because 1 of .* arrays .*lower lr"):
        run(state, tmp_path, 10, Intervals(save=1), step, checkpoints=few)
    assert numbers(tmp_path / "models") == [1, 2, 3][-keep:]
    assert stored(make_state(seed=1), tmp_path / "models").restore() == 3


def test_a_stop_asked_for_while_a_batch_is_awaited_saves_what_there_is(tmp_path):
    state = make_state()
    assert run(state, tmp_path, 50, training=itertools.repeat(None, 3)) == "interrupted"
    assert numbers(tmp_path / "models") == [3]


def test_a_stop_before_the_first_iteration_leaves_no_checkpoint(tmp_path):
    assert run(make_state(), tmp_path, 50, training=[]) == "interrupted"
    assert run(make_state(), tmp_path, 50, stopped=lambda: True) == "interrupted"
    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("eagerly")
def test_frozen_variables_do_not_move_and_have_no_optimiser_state(tmp_path):
    state = make_state("online", freeze="backend_0|classifier")
    before = weights(state)
    step = train_step(state, objective=Objective(freeze="backend_0|classifier"))
    run(state, tmp_path, 2, step=step)
    trainable = {v.path for v in state.model.trainable_variables}
    moved = {path for path, value in weights(state).items() if not np.array_equal(value, before[path])} & trainable
    assert moved == {path for path in trainable if "backend_0" not in path and "classifier" not in path}
    assert not any("backend_0" in v.path or "classifier" in v.path for v in state.optimizer.variables)


def test_freezing_everything_is_refused():
    with pytest.raises(InputError, match="vars_to_freeze = pimms matches every variable"):
        make_state(freeze="pimms")


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("variant", ["hard", "soft"])
@pytest.mark.parametrize("assemble_with", ["label", "score"])
def test_hard_and_soft_train_only_the_segmenter(variant, assemble_with, tmp_path):
    state = make_state(variant)
    before = weights(state, "/classifier/")
    objective = Objective(assemble_with=assemble_with, decay=0.1)
    step = train_step(state, objective=objective)
    segmenter = weights(state, "/frontend/")
    run(state, tmp_path, 2, step=step)
    assert same(before, weights(state, "/classifier/"))
    assert not same(segmenter, weights(state, "/frontend/"))
    assert not any("/classifier/" in v.path for v in trained_variables(state.model))


@pytest.mark.usefixtures("eagerly")
def test_assembling_by_label_is_training_hemis():
    soft, hemis = make_state("soft"), make_state("hemis")
    for part in ("backends", "frontend"):
        for one, other in zip(*(np.atleast_1d(getattr(s.model, part)) for s in (soft, hemis)), strict=True):
            one.set_weights(other.get_weights())
    objective = Objective(assemble_with="label")
    steps = [make_train_step(s, make_loss("Dice"), constant(1.0), objective=objective) for s in (soft, hemis)]
    assert float(steps[0](make_batch(0)).total_loss) == pytest.approx(
        float(steps[1](make_batch(0)).total_loss), rel=1e-6
    )


@pytest.mark.usefixtures("eagerly")
def test_the_total_is_the_sum_of_its_parts_with_the_scheduled_weight():
    state = make_state("online")
    objective = Objective(decay=0.5)
    seen = []

    def schedule(iteration):
        seen.append(iteration)
        return 0.25

    step = make_train_step(state, make_loss("Dice"), schedule, objective=objective)
    for number in range(2):
        m = step(make_batch(number))
        expected = float(m.segmentation_loss) + 0.25 * float(m.modality_loss) + float(m.penalty)
        assert float(m.total_loss) == pytest.approx(expected, rel=1e-6)
        assert float(m.penalty) > 0
    assert seen == [1, 2]
    validate = make_validation_step(state, make_loss("Dice"), schedule, objective=objective)
    validate(make_batch(0))
    assert seen == [1, 2, 2]


@pytest.mark.usefixtures("eagerly")
def test_the_confusion_counts_known_valid_scans_only():
    state = make_state("online")
    validate = validation_step(state)
    batch = make_batch(0, scans=3)
    valid = tf.constant([[True, True, False], [True, True, True]])
    modality = tf.constant([[0, -1, 1], [1, 1, 0]])
    confusion = validate(batch._replace(valid=valid, modality=modality)).confusion.numpy()
    np.testing.assert_array_equal(confusion.sum(axis=1), [2, 2])


@pytest.mark.usefixtures("eagerly")
def test_with_a_null_class_empty_slots_are_counted_as_class_zero():
    state = make_state("online", null_class=True)
    validate = validation_step(state)
    batch = make_batch(0)
    confusion = validate(batch._replace(valid=tf.constant([[True, False]] * 2), modality=tf.ones((2, 2), tf.int32)))
    np.testing.assert_array_equal(confusion.confusion.numpy().sum(axis=1), [2, 2])


def test_the_mean_of_metrics_weighs_batches_equally_and_adds_confusions():
    one = Metrics(*map(np.float32, (1, 2, 3, 4, 0.5)), np.eye(2, dtype=np.int32))
    two = Metrics(*map(np.float32, (3, 4, 5, 6, 1.0)), np.ones((2, 2), np.int32))
    mean = mean_metrics([one, two])
    assert mean[:-1] == (2, 3, 4, 5, 0.75)
    np.testing.assert_array_equal(mean.confusion, [[2, 1], [1, 2]])
    assert mean_metrics([]) is None


def test_summaries_hold_every_scalar_the_confusion_and_the_preview(tmp_path):
    state = make_state()
    writers = tuple(tf.summary.create_file_writer(str(tmp_path / name)) for name in ("training", "validation"))
    counted = NOTHING._replace(confusion=np.eye(2, dtype=np.int32))

    def step(batch):
        state.iteration.assign_add(1)
        return counted

    every = Intervals(summary=1, validation=2, save=2)
    picture = np.zeros((4, 6, 3), np.float32)
    options = {
        "writer": writers[0],
        "validation_writer": writers[1],
        "validation": lambda: counted,
        "preview": lambda: picture,
    }
    run(state, tmp_path, 2, every, step, **options)
    tags = {}
    for name in ("training", "validation"):
        (file,) = (tmp_path / name).iterdir()
        events = [event for event in tf.compat.v1.train.summary_iterator(str(file)) if event.summary.value]
        tags[name] = {(event.summary.value[0].tag, event.step) for event in events}
    scalars = {*Metrics._fields[:-1], "modality_accuracy", "confusion"}
    assert tags["training"] == set(itertools.product(scalars, (1, 2)))
    assert tags["validation"] == set(itertools.product(scalars | {"preview"}, (2,)))


class FullDisk:
    """A writer of summaries on a disk that takes no more."""

    def __init__(self, reason):
        self.reason = reason

    def as_default(self, step):
        return NO_WRITER.as_default(step=step)

    def flush(self):
        raise tf.errors.ResourceExhaustedError(None, None, f"/logs/events; {self.reason}")


def test_a_full_disk_costs_the_records_for_tensorboard_and_not_the_training(tmp_path, caplog):
    state = make_state()
    assert run(state, tmp_path, 2, Intervals(summary=1), writer=FullDisk("No space left on device")) == "finished"
    assert "iteration 1 is not recorded for TensorBoard (No space left on device)" in caplog.messages
    assert numbers(tmp_path / "models") == [2]
    with pytest.raises(tf.errors.OpError):
        run(make_state(), tmp_path / "other", 2, Intervals(summary=1), writer=FullDisk("worker 1 is gone"))


def in_a_process_of_its_own(program, *words):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{here}", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, str(here / "programs" / program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=words[0])
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    in_a_process_of_its_own("resumed.py", tmp_path)


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns_from_both_their_batches(tmp_path):
    in_a_process_of_its_own("two_replicas.py", tmp_path, "equal")


@pytest.mark.slow
def test_a_normalised_model_trains_on_two_replicas_and_goes_on_with_one(tmp_path):
    in_a_process_of_its_own("two_replicas.py", tmp_path, "normalised")


def test_a_scheduled_learning_rate_holds_at_its_iteration_whatever_came_before():
    state = make_state()
    state.iteration.assign(4)
    step = make_train_step(
        state, make_loss("Dice"), constant(1.0), learning_rate=lambda iteration: 0.25 if iteration == 5 else 9.0
    )
    step(make_batch(0))
    assert float(state.optimizer.learning_rate.numpy()) == 0.25


def test_rmsprop_takes_the_steps_of_tensorflow_1():
    model = build_model("hemis", 1, 2, frontend="highres_1x1")
    variables, start = model.trainable_variables, [variable.numpy() for variable in model.trainable_variables]
    gradients = [np.random.default_rng(n).normal(size=value.shape).astype("f4") for n, value in enumerate(start)]
    state = new_state(model, "rmsprop", 0.1)
    for _ in range(3):
        state.optimizer.apply([tf.constant(gradient) for gradient in gradients], variables)
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        theirs = [tf.compat.v1.Variable(value) for value in start]
        apply = tf.compat.v1.train.RMSPropOptimizer(0.1).apply_gradients(zip(gradients, theirs, strict=True))
        session.run(tf.compat.v1.global_variables_initializer())
        for _ in range(3):
            session.run(apply)
        expected = session.run(theirs)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=1e-6)
