"""Several devices: the strategy that a run's settings name, and what its workers agree on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from rll_tf.training.settings import Settings

# What TensorFlow raises in a worker where another is gone; which, depends on what it was waiting for.
_LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
)  # fmt: skip
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'


def make_strategy(settings: Settings) -> tf.distribute.Strategy:
    """The strategy that `settings.strategy` names; make it before anything else makes TensorFlow start.

    Raises:
        ValueError: there are not so many devices, TensorFlow has started, or TF_CONFIG is not right.
    """
    if settings.replicas is not None and settings.strategy != "mirrored":
        raise ValueError(f"replicas is for strategy=mirrored; got strategy={settings.strategy}")
    if settings.strategy == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(settings.replicas))
    if settings.strategy == "multi_worker":
        return _multi_worker()
    return tf.distribute.get_strategy()


def _devices(replicas: int | None) -> list[str]:
    """GPUs, or parts of the CPU where there is none."""
    gpus = tf.config.list_physical_devices("GPU")
    count = max(1, len(gpus)) if replicas is None else replicas
    if gpus and count > len(gpus):
        raise ValueError(f"replicas must be at most the number of GPUs ({len(gpus)}); got {count}")
    if not gpus and count > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        try:
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        except RuntimeError as error:
            raise ValueError("a CPU must be split into replicas before TensorFlow has started") from error
    return [f"{'GPU' if gpus else 'CPU'}:{number}" for number in range(count)]


def _multi_worker() -> tf.distribute.Strategy:
    """Waits until every worker of TF_CONFIG has come."""
    given = os.environ.get("TF_CONFIG", "")
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        cluster, kind, index = resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG must have the form {_EXAMPLE}; got {given!r}") from error
    if kind not in ("chief", "worker") or not index < len(cluster.get(kind, ())):
        raise ValueError(f"TF_CONFIG must have the form {_EXAMPLE}; got {given!r}")
    workers = sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    print(f"{kind} {index}: waiting until all {workers} workers have joined", flush=True)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that validates and writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type == "chief":
        return True
    return "chief" not in resolver.cluster_spec().jobs and resolver.task_id == 0


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether it is a strategy of several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def agree(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether `flag` is set in any worker; each calls this at the same point and waits for the others."""
    if not has_workers(strategy):
        return flag
    totals = strategy.experimental_local_results(_totals(strategy, tf.constant(+flag)))
    return bool(totals[0] > 0)


@tf.function
def _totals(strategy: tf.distribute.Strategy, flag: tf.Tensor) -> tf.Tensor:
    """The sum of all workers' `flag`s, for each replica of this one."""

    def total() -> tf.Tensor:
        own = tf.identity(flag)  # on this replica's device
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

    return strategy.run(total)


@contextlib.contextmanager
def with_others(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Where another worker is gone, TensorFlow's error becomes a ConnectionError that says so."""
    try:
        yield
    except _LOST as error:
        if not has_workers(strategy):
            raise
        raise ConnectionError(
            "another worker is gone, so training can't continue: start all of them again with --resume"
        ) from error


def default_precision() -> str:
    """What the device computes fast in: float32 on a CPU, on a GPU as its compute capability allows."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    if capability >= (8, 0):  # Ampere
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= (7, 0) else "float32"  # Volta's and later tensor cores
