"""Where training runs: one device, several GPUs, several processes; and in which precision it computes.

Every replica has `batch_size` windows of its own, as in NiftyNet. What a step computes is what one device would compute
from all of them together: batch statistics, means over scans and gradients are those of the global batch.
"""

import logging
import os
import re
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from pimms_tf.cluster import Cluster, cluster_for
from pimms_tf.errors import InputError
from pimms_tf.models import PIMMS, Backend
from pimms_tf.models.classifier import Bottleneck
from pimms_tf.models.layers import Convolution, layers_of

Word = Literal["auto", "one_device", "mirrored", "multi_worker"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]

log = logging.getLogger(__name__)


def prepare_machine(num_threads: int) -> None:
    """Lets TensorFlow compute with so many threads of the processor, as many as it likes for 0; before anything else.

    Raises:
        InputError: Keras was told to work on another library.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"training, inference and export need Keras on TensorFlow, but KERAS_BACKEND is {keras.backend.backend()}"
        )
    if num_threads > 0:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)


def strategy(
    word: Word = "auto", num_gpus: int | None = None, environ: Mapping[str, str] = os.environ
) -> tf.distribute.Strategy:
    """Returns TensorFlow's strategy for a user's word.

    "one_device": the first GPU, or the CPU. "mirrored": `num_gpus` GPUs of this process. "multi_worker": the processes
    that TF_CONFIG or Slurm names, `num_gpus` GPUs each. "auto": the last where these name several, else the second
    where there are several GPUs to use, else the first. Must come before anything else of TensorFlow if processes are
    to work together; it then returns once all of them are there.

    Args:
        num_gpus: GPUs to use in each process; None means all there are, 0 the CPU.

    Raises:
        InputError: an unknown word, more GPUs than there are, or a mistake in TF_CONFIG or Slurm's environment.
    """
    if word not in get_args(Word):
        raise InputError(f'strategy = "{word}" is not known; choose one of {", ".join(get_args(Word))}')
    cluster = cluster_for(word, environ)
    if word == "multi_worker" and cluster is None:
        raise InputError("strategy = multi_worker needs to know the other workers: set TF_CONFIG, or start with srun")
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None and num_gpus > max(len(gpus), 1):
        raise InputError(
            f"num_gpus = {num_gpus}, but TensorFlow sees {len(gpus)} here; lower num_gpus, or look at cuda_devices"
        )
    if num_gpus is not None and len(gpus) > num_gpus:
        gpus = gpus[:num_gpus]
        tf.config.set_visible_devices(gpus, "GPU")
    if cluster is not None and (word == "multi_worker" or len(cluster.workers) > 1):
        return _multi_worker(cluster)
    if word == "mirrored" and not gpus:
        cpus = tf.config.list_logical_devices("CPU")
        if len(cpus) < 2:
            raise InputError("strategy = mirrored needs GPUs, and TensorFlow sees none here; use one_device")
        return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(len(cpus))])
    if word == "mirrored" or (word == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([f"GPU:{n}" for n in range(len(gpus))])
    return tf.distribute.get_strategy()


def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    ours, told = cluster.named([cluster.index]), {"worker": cluster.index}  # each worker says this of itself
    log.info("%s of %d; training begins once all are there", ours, len(cluster.workers), extra=told)
    try:
        with _ended_by_signals():
            # TensorFlow waits for the others too, but without a word and deaf to SIGTERM.
            cluster.meet(says_every_s=30.0 if cluster.index else 4.5)
            joined = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except OSError as error:
        raise InputError(
            f"{cluster.named([cluster.index])} cannot have its port ({error.strerror}): end what uses it, or choose "
            "another port for all workers"
        ) from error
    except (tf.errors.OpError, RuntimeError) as error:
        reason = str(getattr(error, "message", None) or error).splitlines()[0]
        raise InputError(
            f"{cluster.named([cluster.index])} cannot join the other workers ({reason}): see that its port is free and "
            "that all were started"
        ) from error
    return joined


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM end this process at once: nothing has begun yet that were worth saving."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    asked = [(number, signal.signal(number, signal.SIG_DFL)) for number in numbers]
    try:
        yield
    finally:
        # TensorFlow, too, has taken SIGTERM for its own ends; earlier handlers are put back.
        for number, handler in asked:
            signal.signal(number, handler)


def cluster_in(of: tf.distribute.Strategy) -> Cluster | None:
    """Returns the cluster a strategy spans, None within one process."""
    resolver = getattr(of, "cluster_resolver", None)
    workers = resolver.cluster_spec().as_dict().get("worker", []) if resolver else []
    return Cluster(tuple(workers), resolver.task_id) if len(workers) > 1 else None


def is_chief(of: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes files."""
    cluster = cluster_in(of)
    return cluster is None or cluster.index == 0


def rows_here(of: tf.distribute.Strategy, batch_size: int) -> tuple[int, int]:
    """Returns which rows of a global batch this process computes, first and stop; `batch_size` is per replica.

    The k-th global batch is the same whatever the number of replicas that share its windows.
    """
    cluster = cluster_in(of)
    local = of.num_replicas_in_sync // (1 if cluster is None else len(cluster.workers)) * batch_size
    first = 0 if cluster is None else cluster.index * local
    return first, first + local


def gather(value: tf.Tensor) -> tf.Tensor:
    """Returns the tensors of all replicas, stacked (replica, …), on each of them; gradients pass through.

    Source: the gradient of a sum over replicas is the sum of the gradients, which `ReplicaContext.all_reduce` takes.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value[None]
    shape = tf.concat([[context.num_replicas_in_sync], tf.shape(value)], axis=0)
    placed = tf.scatter_nd([[context.replica_id_in_sync_group]], value[None], shape)
    placed = tf.ensure_shape(placed, [context.num_replicas_in_sync, *value.shape])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, placed)


def over_workers(of: tf.distribute.Strategy) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from an int32 vector to those of all workers (worker, …).

    All workers must call it, and the first call returns to none before the last one has called: they wait for another.
    """
    cluster = cluster_in(of)
    if cluster is None:
        return lambda values: np.asarray(values, np.int32)[None]
    local = of.num_replicas_in_sync // len(cluster.workers)

    @tf.function
    def gathered(values: tf.Tensor) -> tf.Tensor:
        return of.experimental_local_results(of.run(gather, args=(values,)))[0][::local]

    return lambda values: gathered(tf.constant(values, tf.int32)).numpy()


def wait_for_all(of: tf.distribute.Strategy) -> None:
    """Returns once all workers are here; at once within one process."""
    over_workers(of)(np.zeros(1, np.int32))


@contextmanager
def chief_first(of: tf.distribute.Strategy) -> Iterator[None]:
    """Lets the chief do what is inside before the other workers do it, so that they find the files it leaves."""
    chief = is_chief(of)
    if not chief:
        wait_for_all(of)
    yield
    if chief:
        wait_for_all(of)


def agreed(of: tf.distribute.Strategy, asked: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a function that is true on all workers as soon as `asked` is on one of them."""
    if cluster_in(of) is None:
        return asked
    gathered = over_workers(of)
    return lambda: bool(gathered(np.array([asked()], np.int32)).any())


def as_chief(of: tf.distribute.Strategy, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the chief's float32 arrays for this worker's, so that all workers decide alike; all must call it."""
    own = [np.asarray(value, np.float32) for value in values]
    bits = np.concatenate([value.reshape(-1) for value in own]).view(np.int32)
    chiefs = np.ascontiguousarray(over_workers(of)(bits)[0]).view(np.float32)
    parts = np.split(chiefs, np.cumsum([value.size for value in own])[:-1])
    return [part.reshape(value.shape) for part, value in zip(parts, own, strict=True)]


def check_equal_plans(of: tf.distribute.Strategy, plan: Mapping[str, str]) -> None:
    """Nothing, if all workers plan the same; a plan is named texts, such as those of the settings.

    Raises:
        InputError: another worker has another text.
    """
    cluster = cluster_in(of)
    if cluster is None:
        return
    checksums = [zlib.crc32(text.encode()) & 0x7FFFFFFF for text in plan.values()]
    rows = over_workers(of)(np.array(checksums, np.int32))
    for index, row in enumerate(rows):
        different = [name for name, one, first in zip(plan, row, rows[0], strict=True) if one != first]
        if different:
            raise InputError(
                f"{cluster.named([index])} differs from worker 0 in {', '.join(different)}: start all workers with the "
                "same INI file and options, and let all see the same data"
            )


def check_equal_start(of: tf.distribute.Strategy, model: PIMMS, iteration: int) -> None:
    """Nothing, if all workers hold the same weights at the same iteration.

    Raises:
        InputError: they do not, because they read different checkpoints.
    """
    cluster = cluster_in(of)
    if cluster is None:
        return
    checksum = 0
    for variable in model.variables:
        checksum = zlib.crc32(variable.numpy().tobytes(), checksum)
    rows = over_workers(of)(np.array([iteration, checksum >> 16, checksum & 0xFFFF], np.int32))
    for index, row in enumerate(rows):
        if (row != rows[0]).any():
            raise InputError(
                f"{cluster.named([index])} starts at iteration {row[0]}, worker 0 at {rows[0][0]}, or with other "
                "weights: model_dir must be one folder that all workers see"
            )


@contextmanager
def watched(of: tf.distribute.Strategy, timeout_s: float) -> Iterator[None]:
    """Trains with the others while they live: names a worker that died, and ends this process if it cannot go on.

    TensorFlow notices at once when a connection breaks. Where a machine falls silent it may wait for ever; once a
    worker has not accepted a connection for `timeout_s` seconds, the process ends with exit code 1.

    Raises:
        InputError: another worker died.
    """
    cluster = cluster_in(of)
    if cluster is None:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(cluster, timeout_s, over), name="pimms-workers", daemon=True).start()
    try:
        yield
    except tf.errors.OpError as error:
        lost = _lost(cluster, str(error))
        if not lost:
            raise
        raise InputError(_farewell(cluster, lost)) from error
    finally:
        over.set()


def _watch(cluster: Cluster, timeout_s: float, over: threading.Event) -> None:
    pause = min(5.0, timeout_s / 4)
    seen = dict.fromkeys(range(len(cluster.workers)), time.monotonic())
    while not over.wait(pause):
        missing = cluster.unreachable(pause)
        now = time.monotonic()
        seen |= {index: now for index in seen if index not in missing}
        lost = [index for index, last in seen.items() if now - last > timeout_s]
        if lost and not over.is_set():
            log.error(_farewell(cluster, lost))
            logging.shutdown()
            # The main thread waits inside TensorFlow for a worker that will not answer; nothing else can end it.
            os._exit(1)


def _lost(cluster: Cluster, message: str) -> list[int]:
    """Returns which workers are gone after a failed operation: those without an open port, or else those it names."""
    for _ in range(10):
        lost = cluster.unreachable(1.0)
        if lost:
            return lost
        time.sleep(0.2)
    named = {int(index) for index in re.findall(r"/job:worker/replica:0/task:(\d+)", message)} - {cluster.index}
    return sorted(index for index in named if index < len(cluster.workers))


def _farewell(cluster: Cluster, lost: list[int]) -> str:
    return (
        f"{cluster.named(lost)} stopped answering, so {cluster.named([cluster.index])} cannot go on: look at the end "
        "of its log, then start all workers again with [PIMMS] resume = True"
    )


def check_precision(precision: Precision) -> None:
    """Nothing, for a precision that this machine can compute convolutions in.

    Raises:
        InputError: it is bfloat16, for which oneDNN needs AVX-512 or Arm's like where there is no GPU.
    """
    if precision != "mixed_bfloat16" or tf.config.list_logical_devices("GPU"):
        return
    try:
        tf.nn.conv2d(tf.ones((1, 4, 4, 1), tf.bfloat16), tf.ones((3, 3, 1, 1), tf.bfloat16), 1, "SAME")
    except tf.errors.OpError as error:
        raise InputError("this processor computes no convolution in bfloat16; use precision float32") from error


def set_precision(model: PIMMS, precision: Precision) -> None:
    """Makes the convolutions compute in half precision; weights stay float32.

    Statistics, re-assembly, moments across modalities, the classifier's last layer, the logits and everything after
    them stay float32 as well, so that checkpoints are the same and load under any precision.

    Raises:
        InputError: an unknown word.
    """
    if precision not in get_args(Precision):
        raise InputError(f'precision = "{precision}" is not known; choose one of {", ".join(get_args(Precision))}')
    if precision == "float32":
        return
    if precision == "mixed_float16" and not tf.config.list_logical_devices("GPU"):
        log.warning("mixed_float16 is for GPUs; a processor takes far longer with it than with float32")
    for layer in layers_of(model):
        if isinstance(layer, (Backend, Bottleneck, Convolution)):
            for part in layers_of(layer):
                part.dtype_policy = keras.dtype_policies.get(precision)
    if model.attention is not None:
        last = model.frontend.conv_2
        (last.conv if last.norm is None else last.norm).dtype_policy = keras.dtype_policies.get("float32")
