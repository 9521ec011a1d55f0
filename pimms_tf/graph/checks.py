"""Complaints inside a graph: what a server answers with `InvalidArgument`, in words of the one who asked."""

from typing import TypeVar

import tensorflow as tf

Tensors = TypeVar("Tensors")


def checked(value: Tensors, condition: tf.Tensor, *parts: str | tf.Tensor) -> Tensors:
    """The tensor, or the structure of tensors, whose reader gets InvalidArgument instead unless `condition` holds.

    `parts` of the message are texts and scalars of any type; nothing that comes from `value` is computed before the
    check, so it can guard how much memory is taken.
    """
    with tf.control_dependencies([tf.debugging.Assert(condition, [joined(*parts)])]):
        return tf.nest.map_structure(tf.identity, value)


def joined(*parts: str | tf.Tensor) -> tf.Tensor:
    """The parts as one string tensor."""
    texts = [part if isinstance(part, str) or part.dtype == tf.string else tf.as_string(part) for part in parts]
    return tf.strings.join(texts)


def listed(numbers: tf.Tensor, separator: str = " x ") -> tf.Tensor:
    """The numbers of a vector as one string tensor."""
    return tf.strings.reduce_join(tf.as_string(numbers), separator=separator)
