"""A request for a signature: checked, joined with others of its kind, run in a thread, and counted."""

import asyncio
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import prometheus_client
import tensorflow as tf

from pimms_tf.server.versions import Tensors, Version

# Signatures that take windows, each by itself. Volumes of several patients must never be joined.
_BATCHED = ("serving_default", "classify_windows", "segment_with_scores")
# What a check in the graph says, before TensorFlow's words about where the check stands.
_COMPLAINT = re.compile(r"assertion failed: \[(.*?)\]\s*(\[\[|\[Op:|$|\n|\t)", re.DOTALL)
_MOST_ROWS = 64
_WAIT_S = 0.002


class RefusedError(Exception):
    """A request that is wrong; `code` is the name of a gRPC status."""

    def __init__(self, text: str, code: str = "INVALID_ARGUMENT") -> None:
        super().__init__(text)
        self.code = code


@dataclass(eq=False)
class _Waiting:
    inputs: Mapping[str, np.ndarray]
    answer: asyncio.Future


class Metrics:
    """What Prometheus may read."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        names = ("protocol", "signature", "code")
        self.requests = prometheus_client.Counter(
            "pimms_requests", "Requests that were answered or refused", names, registry=self.registry
        )
        self.seconds = prometheus_client.Histogram(
            "pimms_request_seconds",
            "Seconds from request to answer",
            ("signature",),
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
            registry=self.registry,
        )
        self.waiting = prometheus_client.Gauge(
            "pimms_requests_waiting", "Requests that wait or run", registry=self.registry
        )

    def text(self) -> bytes:
        """The figures as Prometheus reads them."""
        return prometheus_client.generate_latest(self.registry)


class Runner:
    """Runs requests, so many at a time, and keeps no more than so many waiting."""

    def __init__(self, num_threads: int, most_waiting: int) -> None:
        self.metrics = Metrics()
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="request")
        self._most, self._count = most_waiting, 0
        self._groups: dict[tuple, list[_Waiting]] = {}

    async def run(
        self,
        version: Version,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: tuple[str, ...],
        protocol: str,
    ) -> Tensors:
        """What a version answers.

        Raises:
            RefusedError: the signature is unknown, inputs do not fit it, or too many requests are waiting.
        """
        code, began = "OK", time.perf_counter()
        known = signature if signature in version.signatures else ""
        try:
            inputs = checked_inputs(version, signature, inputs, outputs)
            if self._count >= self._most:
                raise RefusedError(f"{self._most} requests are waiting already; try again later", "RESOURCE_EXHAUSTED")
            self._count += 1
            try:
                found = await self._answer(version, signature, inputs)
            finally:
                self._count -= 1
            return {name: value for name, value in found.items() if not outputs or name in outputs}
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except RefusedError as error:
            code = error.code
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self.metrics.requests.labels(protocol, known, code).inc()
            self.metrics.seconds.labels(known).observe(time.perf_counter() - began)
            self.metrics.waiting.set(self._count)

    async def close(self) -> None:
        """Returns when what runs has ended; what waits is not begun."""
        await asyncio.get_running_loop().run_in_executor(None, lambda: self._pool.shutdown(cancel_futures=True))

    async def _answer(self, version: Version, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
        loop = asyncio.get_running_loop()
        if signature not in _BATCHED:
            # A request whose client has gone before its turn is cancelled with its future, and never runs.
            return await loop.run_in_executor(self._pool, _run, version, signature, inputs)
        kinds = tuple((name, value.dtype.str, value.shape[1:]) for name, value in sorted(inputs.items()))
        key, waiting = (version, signature, kinds), _Waiting(inputs, loop.create_future())
        group = self._groups.setdefault(key, [])
        group.append(waiting)
        if len(group) == 1:
            loop.call_later(_WAIT_S, self._begin, key)
        elif sum(_rows(each) for each in group) >= _MOST_ROWS:
            self._begin(key)
        return await waiting.answer

    def _begin(self, key: tuple) -> None:
        group = [each for each in self._groups.pop(key, []) if not each.answer.done()]
        if group:
            asyncio.get_running_loop().create_task(self._run_group(key[0], key[1], group))

    async def _run_group(self, version: Version, signature: str, group: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        joined = {name: np.concatenate([each.inputs[name] for each in group]) for name in group[0].inputs}
        try:
            found = await loop.run_in_executor(self._pool, _run, version, signature, joined)
        except BaseException as error:
            if len(group) == 1 or not isinstance(error, RefusedError):
                for each in group:
                    if not each.answer.done():
                        each.answer.set_exception(error)
            else:  # one of them is wrong, and the others are not to suffer for it
                for each in group:
                    await self._run_group(version, signature, [each])
            return
        start = 0
        for each in group:
            stop = start + _rows(each)
            if not each.answer.done():
                each.answer.set_result({name: value[start:stop] for name, value in found.items()})
            start = stop


def checked_inputs(
    version: Version, signature: str, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """The inputs with the types of a signature, and its defaults for those that are left out.

    Raises:
        RefusedError: there is no such signature, or names, types or shapes are not its own.
    """
    if signature not in version.signatures:
        known = ", ".join(sorted(version.signatures))
        raise RefusedError(f'Serving signature key "{signature}" not found; there are {known}', "FAILED_PRECONDITION")
    wanted, defaults = version.signatures[signature].inputs, version.signatures[signature].defaults
    unknown, missing = set(inputs) - set(wanted), set(wanted) - set(inputs) - set(defaults)
    if unknown or missing:
        asked = ", ".join(sorted(wanted))
        raise RefusedError(f"inputs are {', '.join(sorted(inputs)) or 'none'}, but {signature} takes {asked}")
    foreign = set(outputs) - set(version.signatures[signature].outputs)
    if foreign:
        raise RefusedError(f"output {', '.join(sorted(foreign))} is none of {signature}")
    found = {name: tf.make_ndarray(value) for name, value in defaults.items()}
    for name, value in inputs.items():
        dtype, shape = tf.dtypes.as_dtype(wanted[name].dtype), tf.TensorShape(wanted[name].tensor_shape)
        if dtype != tf.string and value.dtype != dtype.as_numpy_dtype:
            raise RefusedError(f"input {name} is {value.dtype}, but {signature} takes {dtype.name}")
        if dtype == tf.string and value.dtype.kind != "O":
            raise RefusedError(f"input {name} is {value.dtype}, but {signature} takes strings")
        if not shape.is_compatible_with(value.shape):
            raise RefusedError(f"input {name} has the shape {list(value.shape)}, but {signature} takes {shape}")
        found[name] = value
    return found


def _rows(waiting: _Waiting) -> int:
    return len(next(iter(waiting.inputs.values())))


def _run(version: Version, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
    try:
        return version.run(signature, {name: tf.constant(value) for name, value in inputs.items()})
    except tf.errors.OpError as error:
        found = _COMPLAINT.search(error.message)
        text = found[1] if found else error.message.partition("\n")[0]
        known = isinstance(error, (tf.errors.InvalidArgumentError, tf.errors.DataLossError))
        raise RefusedError(text, "INVALID_ARGUMENT" if known else "INTERNAL") from error
