"""Where training runs: words, clusters, several replicas that learn as one, precision."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pimms_tf.cluster import ranked_log
from pimms_tf.errors import InputError
from pimms_tf.models import build_classifier, build_model
from pimms_tf.pipeline.trays import Batch
from pimms_tf.training import (
    Cluster,
    LossScale,
    Objective,
    cluster_of,
    constant,
    make_loss,
    make_train_step,
    new_state,
    set_precision,
    strategy,
)
from pimms_tf.training.checkpoints import Checkpoints, load_arrays
from pimms_tf.training.devices import agreed, as_chief, gather, is_chief, over_workers, rows_here
from pimms_tf.training.steps import check_equal_slots

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = {"frontend": "highres_1x1", "classifier_features": (4, 8), "classifier_blocks": 1}


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def slurm(procid, nodes, tasks, per_node, job="0"):
    return {
        "SLURM_PROCID": str(procid),
        "SLURM_JOB_ID": job,
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
    }


TWO = {"worker": ["one:2222", "two:2222"]}


def test_tf_config_names_the_workers_and_ones_own_place():
    assert cluster_of(tf_config(TWO, index=1)) == Cluster(("one:2222", "two:2222"), 1)
    with_chief = {"chief": ["head:1"], "worker": ["one:2222", "two:2222"]}
    assert cluster_of(tf_config(with_chief, "chief")) == Cluster(("head:1", "one:2222", "two:2222"), 0)
    assert cluster_of(tf_config(with_chief, "worker", 1)).index == 2


@pytest.mark.parametrize("environ", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, {"SLURM_JOB_ID": "7"}])
def test_without_a_description_there_is_no_cluster(environ):
    assert cluster_of(environ) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{worker", "TF_CONFIG is not JSON"),
        ("[1]", "TF_CONFIG needs a cluster and a task"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG needs a cluster and a task"),
        (tf_config({"worker": ["a:1"], "ps": ["b:1"]})["TF_CONFIG"], "lists tasks of type ps"),
        (tf_config({"worker": ["a"]})["TF_CONFIG"], "address 'a', which is not of the form host:port"),
        (tf_config({"worker": "a:1"})["TF_CONFIG"], "gives worker as 'a:1'; it is a list"),
        (tf_config({"worker": ["a:1", "a:1"]})["TF_CONFIG"], "lists the address a:1 twice"),
        (tf_config(TWO, "chief")["TF_CONFIG"], "calls this task 'chief', but its cluster has tasks of type worker"),
        (tf_config(TWO, index=2)["TF_CONFIG"], "calls this task worker 2, but its cluster has worker 0 to 1"),
        (tf_config(TWO, index="x")["TF_CONFIG"], "calls this task worker x"),
    ],
)
def test_a_mistake_in_tf_config_is_one_sentence(text, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)) as caught:
        cluster_of({"TF_CONFIG": text})
    assert "\n" not in str(caught.value)


def test_slurm_names_the_workers_in_the_order_of_its_tasks():
    cluster = cluster_of(slurm(2, "n[2,10]", 3, "2,1"))
    assert cluster == Cluster(("n2:10000", "n2:10001", "n10:10000"), 2)
    assert cluster_of(slurm(0, "n[08-10],gpu1", 4, "1(x4)", "3")).workers == (
        "n08:10384",
        "n09:10384",
        "n10:10384",
        "gpu1:10384",
    )


def test_steps_of_one_job_and_jobs_on_one_node_have_ports_of_their_own():
    def ports(job, step):
        workers = cluster_of(slurm(0, "n1", 16, "16", job) | {"SLURM_STEP_ID": step}).workers
        return {int(worker.rpartition(":")[2]) for worker in workers}

    taken = [ports(job, step) for job in ("1000", "1001", "1002") for step in map(str, range(8))]
    assert len(set.union(*taken)) == sum(map(len, taken))
    assert all(10000 <= port < 30016 for port in set.union(*taken))


def test_slurm_is_read_as_tensorflow_reads_it_where_names_sort_as_numbers(monkeypatch):
    environ = slurm(1, "n[08-09]", 3, "2,1")
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=10000, gpus_per_node=2, gpus_per_task=1, auto_set_gpu=False
    )
    assert tuple(resolver.cluster_spec().as_dict()["worker"]) == cluster_of(environ).workers
    assert resolver.get_task_info() == ("worker", cluster_of(environ).index)


def test_a_batch_script_is_no_worker_unless_one_says_so():
    job = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert cluster_of(job) is None
    assert cluster_of(job, whole_job=True) == Cluster(("n1:10000", "n2:10000"), 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"SLURM_STEP_NODELIST": "n[1-"}, "n[1- is not a list of Slurm nodes"),
        ({"SLURM_STEP_NODELIST": "n1"}, "Slurm gives 2 tasks, but 1(x2) on the 1 nodes n1"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, "SLURM_STEP_TASKS_PER_NODE = two is not a list of numbers"),
        ({"SLURM_PROCID": "2"}, "SLURM_PROCID = 2, but there are only 2 tasks"),
        ({"SLURM_PROCID": "b"}, "SLURM_PROCID = b is not a number"),
        ({"SLURM_STEP_NUM_TASKS": ""}, "SLURM_STEP_NUM_TASKS is not"),
    ],
)
def test_a_mistake_in_slurms_environment_is_one_sentence(change, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        cluster_of(slurm(0, "n[1-2]", 2, "1(x2)") | change)


def test_a_worker_without_an_open_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        there, gone = server.getsockname()[1], free_ports(1)[0]
        cluster = Cluster((f"127.0.0.1:{there}", f"127.0.0.1:{gone}", "127.0.0.1:1"), 2)
        assert cluster.unreachable(2.0) == [1]
    assert cluster.named([1]) == f"worker 1 (127.0.0.1:{gone})"


def test_workers_meet_once_all_are_there_and_say_for_whom_they_wait(caplog):
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    clusters = [Cluster(addresses, index) for index in range(3)]
    with ExitStack() as servers, ThreadPoolExecutor(3) as pool:
        first = [pool.submit(cluster.meet, 0.05) for cluster in clusters[:2]]
        while f"still waiting for worker 2 ({addresses[2]})" not in caplog.messages:
            time.sleep(0.02)
        assert not any(waiting.done() for waiting in first)
        # A worker that has met all goes on to TensorFlow, which serves at the same address.
        going = {waiting: number for number, waiting in enumerate([*first, pool.submit(clusters[2].meet)])}
        for waiting in as_completed(going, timeout=20):
            waiting.result()
            port = int(addresses[going[waiting]].rpartition(":")[2])
            servers.enter_context(socket.create_server(("127.0.0.1", port)))


def test_a_worker_whose_port_is_in_use_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = tf_config({"worker": [f"127.0.0.1:{server.getsockname()[1]}", "127.0.0.1:1"]})
        with pytest.raises(InputError, match="worker 0 .* cannot have its port .*: end what uses it"):
            strategy("auto", 0, environ)


@pytest.mark.parametrize("word", ["auto", "one_device"])
def test_a_machine_without_gpus_trains_on_one_device(word):
    found = strategy(word, environ={})
    assert found.num_replicas_in_sync == 1
    assert is_chief(found)
    assert rows_here(found, 8) == (0, 8)
    assert agreed(found, lambda: True)()
    np.testing.assert_array_equal(over_workers(found)(np.array([3, 4])), [[3, 4]])
    numbers = [np.float32(0.1), np.ones((2, 2), np.float32)]
    assert all(np.array_equal(one, other) for one, other in zip(as_chief(found, numbers), numbers, strict=True))
    np.testing.assert_array_equal(gather(tf.constant([1.0, 2.0])), [[1.0, 2.0]])


def test_one_task_of_slurm_or_tf_config_trains_on_one_device():
    assert strategy("auto", environ=slurm(0, "n1", 1, "1")).num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("word", "num_gpus", "complaint"),
    [
        ("tpu", None, 'strategy = "tpu" is not known; choose one of auto, one_device, mirrored, multi_worker'),
        ("auto", 3, "num_gpus = 3, but TensorFlow sees 0 here"),
        ("mirrored", None, "strategy = mirrored needs GPUs"),
        ("multi_worker", None, "strategy = multi_worker needs to know the other workers"),
    ],
)
def test_a_strategy_that_cannot_be_had_is_refused_in_a_sentence(word, num_gpus, complaint):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("the sentences are about a machine without GPUs")
    with pytest.raises(InputError, match=re.escape(complaint)):
        strategy(word, num_gpus, environ={})


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def uneven_batch(seed, num=4, size=12, scans=3):
    """Discs on noise; the rows differ in how many scans they have and know, and so do the halves of the batch."""
    rng = np.random.default_rng(seed)
    x, y = np.indices((size, size))
    centres = rng.uniform(size * 0.25, size * 0.75, (num, 2))
    label = np.array([(x - a) ** 2 + (y - b) ** 2 < (size / 6) ** 2 for a, b in centres]).astype(np.int32)
    images = 3 * label[..., None] + rng.normal(0, 0.5, (num, size, size, scans)) + np.arange(scans)
    valid = np.ones((num, scans), bool)
    valid[0, 1] = valid[-1, 0] = valid[-1, 2] = False
    modality = np.tile(np.arange(scans, dtype=np.int32) % 2, (num, 1))
    modality[1, 0] = -1
    images = images * valid[:, None, None, :]
    return Batch(*map(tf.constant, (images.astype(np.float32), valid, modality, label)))


def make_state(variant="online", optimiser="momentum", **choices):
    # Adam divides by the root of the squared gradient and so makes whole steps of what is rounding error where the
    # true gradient is nothing; momentum shows gradients as they are.
    keras.utils.set_random_seed(0)
    choices = SMALL | choices
    if variant == "classifier":
        choices.pop("frontend")
    model = build_classifier(2, **choices) if variant == "classifier" else build_model(variant, 2, 2, **choices)
    return new_state(model, optimiser, 0.01)


def assert_same_weights(values, expected):
    # Relative to the largest weight of a variable; one that starts at 0 is still as small as its rounding errors.
    for path, value in values.items():
        assert np.abs(value - expected[path]).max() <= 1e-6 * np.abs(value).max() + 2e-8, path


def weights(state):
    return {variable.path: variable.numpy() for variable in state.model.variables}


def assert_same_metrics(one, two, tolerance=1e-6):
    for name, a, b in zip(one._fields, one, two, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, err_msg=name)


def learn_alike(cases, tmp_path):
    done = subprocess.run(
        [sys.executable, str(HERE / "programs" / "several.py"), str(tmp_path), json.dumps(cases)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "TF_CPP_MIN_LOG_LEVEL": "2"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_replicas_learn_what_one_device_learns(tmp_path):
    learn_alike([("classifier", {})], tmp_path)


@pytest.mark.slow
def test_two_replicas_learn_to_the_last_digits_what_one_device_learns_from_their_batches_together(tmp_path):
    learn_alike([("online", {})], tmp_path)


@pytest.mark.slow
def test_two_replicas_learn_as_one_device_in_every_variant_and_scope_of_statistics(tmp_path):
    cases = [
        ("online", {"norm_scope": "all", "mask_scope": "batch"}),
        ("online", {"norm_scope": "slot", "null_class": True}),
        ("online", {"classifier_average": "plain", "classifier_head_bn": True}),
        ("soft", {}),
        ("online", {"norm": "none", "frontend": "paper"}),
    ]
    learn_alike(cases, tmp_path)


@pytest.mark.parametrize("variant", ["online", "classifier"])
@pytest.mark.parametrize(("precision", "tolerance"), [("mixed_bfloat16", 2e-2), ("mixed_float16", 5e-3)])
def test_half_precision_learns_nearly_as_float32(variant, precision, tolerance, tmp_path, request):
    """The tolerances are some 5 and 10 units in the last place of the two types, at losses around 1."""
    if precision == "mixed_bfloat16":
        request.getfixturevalue("bfloat16")
    losses = {}
    for word in ("float32", precision):
        state = make_state(variant)
        set_precision(state.model, word)
        scale = LossScale() if word == "mixed_float16" else None
        step = make_train_step(
            state, make_loss("Dice"), constant(1.0), objective=Objective(decay=1e-4), loss_scale=scale
        )
        losses[word] = [float(step(uneven_batch(seed)).total_loss) for seed in range(4)]
    np.testing.assert_allclose(losses[precision], losses["float32"], atol=tolerance)
    assert losses[precision] != losses["float32"]

    prediction = state.model(uneven_batch(9).scans)
    assert {part.dtype for part in prediction if part is not None} == {tf.float32}
    Checkpoints(tmp_path, state.model, state.optimizer, state.iteration).save()
    arrays = load_arrays(tmp_path / "model.ckpt-4", {name: value.shape for name, value in weights(state).items()})
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    other = make_state(variant)
    assert Checkpoints(tmp_path, other.model, other.optimizer, other.iteration).restore() == 4


def test_only_convolutions_and_what_lies_between_them_compute_in_half_precision():
    model = make_state("online").model
    set_precision(model, "mixed_bfloat16")
    half = (
        model.backends[0].conv_1.conv,
        model.classifier.stem.conv,
        model.classifier.blocks[0],
        model.frontend.conv_2,
    )
    assert {layer.compute_dtype for layer in half} == {"bfloat16"}
    whole = (
        model.attention,
        model.abstraction,
        model.classifier.norm,
        model.classifier.head,
        model.frontend.conv_2.norm,
    )
    assert {layer.compute_dtype for layer in whole} == {"float32"}
    assert {variable.dtype for variable in model.variables} == {"float32"}


def test_workers_whose_subjects_have_other_numbers_of_scans_are_told_to_set_max_slots():
    check_equal_slots([2, 2], 2)
    with pytest.raises(InputError, match=r"have 1 and 2 and 4 scan slots, .*: set max_slots in \[PIMMS\]"):
        check_equal_slots([2, 1, 4], 2)


def test_a_processor_is_no_place_for_float16(caplog):
    model = make_state("classifier").model
    set_precision(model, "mixed_bfloat16")
    assert not caplog.text
    set_precision(model, "mixed_float16")
    assert "mixed_float16 is for GPUs" in caplog.text


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match='precision = "half" is not known; choose one of float32, mixed_bfloat16'):
        set_precision(make_state("classifier").model, "half")


def test_a_step_that_overflows_changes_nothing_but_the_iteration(caplog):
    state = make_state("classifier", "adam")
    scale = LossScale(float("inf"))
    step = make_train_step(state, make_loss("Dice"), constant(1.0), loss_scale=scale)
    before = weights(state) | {variable.path: variable.numpy() for variable in state.optimizer.variables}
    step(uneven_batch(0))
    after = weights(state) | {variable.path: variable.numpy() for variable in state.optimizer.variables}
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert int(state.iteration.numpy()) == scale.skipped == 1
    assert "iteration 1 taught nothing" in caplog.text
    scale.value = 2.0
    step(uneven_batch(0))
    assert not all(np.array_equal(before[path], value) for path, value in weights(state).items())


def test_the_loss_scale_halves_at_an_overflow_and_doubles_after_many_good_steps():
    scale = LossScale(8.0)
    scale.update(False, 1)
    assert (scale.value, scale.skipped) == (4.0, 1)
    for iteration in range(scale.doubled_every):
        scale.update(True, iteration)
    assert (scale.value, scale.skipped) == (8.0, 1)


_HANGS_S = 900  # nothing takes so long, however much else the machine does


@contextmanager
def two_workers(study, *words_of_each):
    """Both processes of `pimms-tf train x.ini` as workers on this machine, and their addresses; they end with it."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index, words in enumerate(words_of_each or ((), ())):
        environ = os.environ | tf_config({"worker": addresses}, index=index) | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pimms_tf", "train", "x.ini", *words]
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        workers.append(subprocess.Popen(command, env=environ, cwd=study.folder, **pipes))
    try:
        yield workers, addresses
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def await_iteration(worker, number):
    said = []
    for line in worker.stdout:
        said.append(line)
        if f"training iter {number}" in line:
            return
    raise AssertionError("".join(said))


def final_weights(folder, iteration):
    reader = tf.train.load_checkpoint(str(folder / "models" / f"model.ckpt-{iteration}"))
    shapes = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in shapes if name.startswith("pimms/")}


PLAIN = {"optimiser": "momentum", "lr": 0.01, "max_iter": 3, "validation_every_n": 2, "validation_max_iter": 1}


@pytest.mark.slow
def test_two_workers_train_as_one_process_with_twice_the_batch_and_one_of_them_goes_on(study):
    study.write(NETWORK={"batch_size": 2}, TRAINING=PLAIN)
    with two_workers(study) as (workers, _):
        outputs = [worker.communicate(timeout=_HANGS_S)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "training iter 3" in outputs[0]
    assert "validation iter 2" in outputs[0]
    said = [line for line in outputs[1].splitlines() if "worker 1" not in line]
    assert not said, outputs[1]  # only what concerns it, with its rank
    assert len(list((study.folder / "model" / "logs").iterdir())) == 1

    assert study("train", "x.ini", "--batch_size", "4", "--model_dir", "alone") == 0
    one, two = final_weights(study.folder / "alone", 3), final_weights(study.folder / "model", 3)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert np.abs(two[name] - value).max() <= 1e-6 * np.abs(value).max() + 2e-8, name

    resumed = ("--batch_size", "4", "--starting_iter", "3", "--max_iter", "5")
    assert study("train", "x.ini", *resumed) == 0
    assert study("train", "x.ini", *resumed, "--model_dir", "alone") == 0
    one, two = final_weights(study.folder / "alone", 5), final_weights(study.folder / "model", 5)
    for name, value in one.items():
        assert np.abs(two[name] - value).max() <= 2e-6 * np.abs(value).max() + 4e-8, name  # five steps, not three


@pytest.mark.slow
def test_when_a_worker_dies_the_other_ends_and_names_it(study):
    study.write(NETWORK={"batch_size": 2}, TRAINING={"max_iter": 100000})
    with two_workers(study) as (workers, addresses):
        await_iteration(workers[0], 3)
        os.kill(workers[1].pid, signal.SIGKILL)
        rest, _ = workers[0].communicate(timeout=_HANGS_S)
    assert workers[0].returncode not in (0, None)
    assert f"worker 1 ({addresses[1]}) stopped answering" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(("index", "said"), [(0, ["news", "trouble 1"]), (1, ["worker 1 (two:2222): trouble 1"])])
def test_workers_but_the_chief_say_only_what_goes_wrong_and_who_they_are(index, said, caplog):
    log = logging.getLogger("pimms_tf.test")
    with caplog.at_level(logging.INFO), ranked_log(cluster_of(tf_config(TWO, index=index))):
        log.info("news")
        log.warning("trouble %d", 1)
    assert [record.getMessage() for record in caplog.records] == said
    log.warning("after it")
    assert caplog.records[-1].getMessage() == "after it"


def test_who_waits_for_a_worker_that_no_longer_takes_connections_is_ended_with_its_name(tmp_path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "programs" / "silent_worker.py"), address]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=25)
    assert done.returncode == 1
    assert f"worker 1 ({address}) stopped answering, so worker 0 (here:1) cannot go on" in done.stderr


@pytest.mark.slow
def test_one_signal_stops_all_workers_with_a_checkpoint(study):
    study.write(NETWORK={"batch_size": 2}, TRAINING={"max_iter": 100000})
    with two_workers(study) as (workers, _):
        await_iteration(workers[0], 2)
        os.kill(workers[1].pid, signal.SIGTERM)
        outputs = [worker.communicate(timeout=_HANGS_S)[0] for worker in workers]
    assert "saved: " in outputs[0]
    assert list((study.folder / "model" / "models").glob("model.ckpt-*.index"))
    assert [worker.returncode for worker in workers] == [143, 143]


def test_a_worker_ends_when_it_is_told_to_before_the_others_are_there(study):
    with two_workers(study) as (workers, _):
        workers[1].kill()
        assert any("training begins once all are there" in line for line in workers[0].stdout)
        workers[0].send_signal(signal.SIGTERM)
        assert workers[0].wait(timeout=60) in (-signal.SIGTERM, 143)  # by itself, or by Python's handler just before


@pytest.mark.slow
def test_workers_with_different_settings_all_end_before_a_file_is_written(study):
    study.write(NETWORK={"batch_size": 2})
    words = [("--batch_size", str(2 + index), "--lr", f"0.{index + 1}") for index in (0, 1)]
    with two_workers(study, *words) as (workers, addresses):
        outputs = [worker.communicate(timeout=_HANGS_S)[0] for worker in workers]
    for worker, output in zip(workers, outputs, strict=True):
        assert f"worker 1 ({addresses[1]}) differs from worker 0 in [NETWORK], [TRAINING]: start" in output
        assert worker.returncode == 2
    assert not (study.folder / "model").exists()
