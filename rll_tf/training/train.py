"""Training with Keras `fit`, from a catalogue to a run folder."""

from __future__ import annotations

import dataclasses
import functools
import platform
import shutil
import statistics
import sys
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.data import (
    Catalogue,
    CorruptPictureError,
    PictureCache,
    class_balanced_batches,
    counted,
    evaluation_batches,
    name_corrupt,
    training_batches,
)
from rll_tf.data.catalogue import folder_hint
from rll_tf.evaluation import RetrievalMetrics
from rll_tf.progress import progress
from rll_tf.training.build import build, rate_schedule, with_pixels
from rll_tf.training.callbacks import Checkpoint, Follower, Metrics, StepLog, best_epoch, is_finished
from rll_tf.training.commit import source_commit
from rll_tf.training.distribution import (
    agree,
    default_precision,
    has_workers,
    is_chief,
    make_strategy,
    with_others,
)
from rll_tf.training.embed import embed, evaluate_embeddings
from rll_tf.training.files import write_json
from rll_tf.training.interrupt import Interrupt
from rll_tf.training.losses import PROXY_LOSSES
from rll_tf.training.multi_worker_fit import prepare_fit
from rll_tf.training.run import Run
from rll_tf.training.settings import Settings
from rll_tf.training.tensorboard import TensorBoard

_LINE = "{desc} |{bar}| step {n_fmt}/{total_fmt}, {remaining} left{postfix}"

FEW_CLASSES = 5


def train(
    settings: Settings,
    catalogue: Catalogue,
    folder: Path,
    *,
    recipe: str = "",
    fixed: Collection[str] = (),
    resume: bool = False,
    cache: PictureCache | None = None,
    skip_corrupt: bool = False,
    tensorboard: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Run:
    """Train an embedding model with a loss of its own for each level and leave a run folder.

    The same settings and pictures give the same weights on one machine, whether training was interrupted or
    not, if the setting `deterministic` is on, which turns on deterministic ops for the whole process.

    Of several workers each calls this, with a `folder` that all of them can read. The first one, the chief,
    validates and writes.

    Args:
        settings: what to train and how.
        catalogue: the pictures; its splits `train` and `validation` where it has both, otherwise a share of
            the training classes is held out.
        folder: where the run goes; new or empty, unless resuming.
        recipe: the recipe's name, for the record.
        fixed: names of settings that must not be adapted to the data, because the user set them.
        resume: continue the run in `folder`.
        cache: keeps resized pictures on disk.
        skip_corrupt: for the record, that corrupt pictures were taken out of `catalogue`.
        tensorboard: write what TensorBoard shows to the run's folder `tensorboard/`.
        strategy: what `make_strategy(settings)` returned, where TensorFlow has started since; None: it is
            called here.

    Returns:
        The finished run.

    Raises:
        ConnectionError: another worker is gone.
        ValueError: the pictures don't suffice, or differ from those that a resumed run began with.
        FileExistsError: `folder` holds something already.
        CorruptPictureError: a picture can't be read or decoded.
        KeyboardInterrupt: on Ctrl-C, once the step is finished and saved; a second one ends the process.
    """
    catalogue = settings.split(catalogue)
    pictures = catalogue.select("train")
    held_out = catalogue.select("validation") if "validation" in catalogue.splits else None
    settings = with_pixels(settings)
    strategy = make_strategy(settings) if strategy is None else strategy
    settings = _fit_devices(settings)
    settings = _adapt(settings, pictures, held_out, fixed, strategy.num_replicas_in_sync)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    writes = is_chief(strategy)
    with with_others(strategy):
        if resume:
            run = Run.open(folder)
            check_same_pictures(run.config, catalogue)
        # Built before a new run's folder is: settings that make no model leave none behind.
        with strategy.scope():
            model, first_step = _begin(settings, run if resume else None, pictures.class_count)
        if resume and writes:
            run.rewind(first_step)
        elif not resume:
            config = {**_config(settings, catalogue, recipe), "skip_corrupt": skip_corrupt}
            run = Run.create(folder, config) if writes else Run(folder)
        board = TensorBoard(run, rate_schedule(settings)) if tensorboard and writes else None
        try:
            if not agree(strategy, writes and is_finished(run.epochs(), settings)):
                _fit(model, settings, pictures, held_out, run, first_step, cache, strategy, board)
        except CorruptPictureError:
            if writes and not run.last_file.exists() and not resume:
                shutil.rmtree(run.folder)  # nothing was learned, and repaired pictures are another run
            raise
        if writes:
            _finish(settings, held_out, run, cache, board)
        agree(strategy, False)  # all wait for the chief
    return run


def _fit_devices(settings: Settings) -> Settings:
    """Settings as the device is best at, where they leave it open; what is unusual about that is printed."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if settings.precision is None:
        settings = dataclasses.replace(settings, precision=default_precision())
        if has_gpu:
            print(f"precision {settings.precision}, which this GPU supports best; --precision sets another")
    if settings.deterministic is None:
        settings = dataclasses.replace(settings, deterministic=not has_gpu)
    return settings


def _adapt(
    settings: Settings,
    pictures: Catalogue,
    held_out: Catalogue | None,
    fixed: Collection[str],
    replicas: int,
) -> Settings:
    """Settings that these pictures allow; what is changed or unusual about them is printed."""
    classes, counts = np.unique(pictures.labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(
            f"training needs at least 2 classes of pictures; {pictures.spec} has {len(classes)}"
            f"{folder_hint(pictures.spec)}"
        )
    compares = settings.loss not in PROXY_LOSSES
    if compares and counts.max() < 2:
        raise ValueError(
            "training needs classes of at least 2 pictures, which the loss compares; "
            f"each of the {len(classes)} training classes of {pictures.spec} has a single one"
        )
    validated = f", {counted(held_out.class_count, 'class')} held out for validation" if held_out else ""
    print(f"training on {counted(len(pictures), 'picture')} of {counted(len(classes), 'class')}{validated}")
    if held_out is None:
        if settings.patience is not None:
            raise ValueError(f"patience needs classes to validate on; none of {pictures.spec} are held out")
        print("no classes are held out for validation: the last checkpoint counts as the best")
    elif held_out.class_count < FEW_CLASSES:
        print(
            f"with fewer than {FEW_CLASSES} classes held out, chance has a part in which checkpoint is best: "
            "--set validation_share=SHARE holds out more, --fold I/K others"
        )
    single = classes[counts == 1]
    if compares and len(single):
        print(
            f"{len(single)} of the classes {'has' if len(single) == 1 else 'have'} a single picture "
            f"(the first is {pictures.class_names[single[0]]}): it is repeated, so it has no true positives "
            "and teaches nothing about its class"
        )
    if settings.classes_per_batch > len(classes):
        given = settings.classes_per_batch
        if "classes_per_batch" in fixed:
            raise ValueError(
                f"classes_per_batch must be at most the number of training classes ({len(classes)}); "
                f"got {given}"
            )
        fewer = len(classes) // replicas * replicas
        print(f"a batch holds {fewer} classes instead of the recipe's {given}: there are no more")
        settings = dataclasses.replace(settings, classes_per_batch=fewer)
    if settings.classes_per_batch % replicas:
        raise ValueError(
            f"classes_per_batch must be a multiple of the number of devices ({replicas}), so that each has "
            f"as many; got {settings.classes_per_batch}"
        )
    return settings


def _config(settings: Settings, catalogue: Catalogue, recipe: str) -> dict[str, Any]:
    names = catalogue.class_names
    return {
        "recipe": recipe,
        "data": catalogue.spec,
        "settings": dataclasses.asdict(settings),
        "fingerprint": _fingerprint(catalogue),
        "classes": {
            split: [names[label] for label in np.unique(catalogue.select(split).labels)]
            for split in catalogue.splits
        },
        "commit": source_commit(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _fingerprint(catalogue: Catalogue) -> str:
    """Names which pictures there are and how they are labelled, wherever their folder lies."""
    names = [
        catalogue.class_names[label] + "/" + Path(path).name
        for path, label in zip(catalogue.paths, catalogue.labels, strict=True)
    ]
    return f"{len(names)} pictures, {zlib.crc32(chr(0).join(names).encode('utf-8', 'surrogateescape')):08x}"


def check_same_pictures(config: dict[str, Any], catalogue: Catalogue) -> None:
    """Check that these are the pictures a run began with: its splits hold for no others.

    Raises:
        ValueError: they are not.
    """
    if config["fingerprint"] != _fingerprint(catalogue):
        raise ValueError(
            f"the run's splits apply to the pictures it began with ({config['fingerprint']}); "
            f"{catalogue.spec} now holds {_fingerprint(catalogue)}"
        )


def _begin(settings: Settings, run: Run | None, classes: int) -> tuple[keras.Model, int]:
    """The model in the state of the run's last checkpoint, or a new one, and how many steps it has done."""
    model, step = (run and run.last_state()) or (build(settings, classes), 0)
    if step:
        print(f"continuing after step {step}")
    else:
        model.optimizer.build(model.trainable_variables)  # a checkpoint lacking its state isn't read
    return model, step


def _fit(
    model: keras.Model,
    settings: Settings,
    pictures: Catalogue,
    held_out: Catalogue | None,
    run: Run,
    first_step: int,
    cache: PictureCache | None,
    strategy: tf.distribute.Strategy,
    board: TensorBoard | None,
) -> None:
    # Numbered from 0, as the proxies are.
    numbered = dataclasses.replace(pictures, labels=np.unique(pictures.labels, return_inverse=True)[1])

    def batches_of(shard: tuple[int, int]) -> tf.data.Dataset:
        return training_batches(
            numbered,
            class_balanced_batches(
                numbered.labels, settings.classes_per_batch, settings.images_per_class, settings.seed, shard
            ),
            settings.preprocessing,
            settings.augmentation,
            tuple(model.output),
            first_step=first_step,
            cache=cache,
        )

    if has_workers(strategy):
        share = settings.classes_per_batch * settings.images_per_class // strategy.num_replicas_in_sync
        pictures_spec = tf.TensorSpec([share, settings.input_px, settings.input_px, 3], tf.float32)
        labels_spec = dict.fromkeys(model.output, tf.TensorSpec([share], tf.int64))
        with strategy.scope():
            dataset = prepare_fit(model, strategy, (pictures_spec, labels_spec), batches_of)
    else:
        dataset = batches_of((0, 1))  # Keras gives each replica its share

    def run_steps(callbacks: list[keras.callbacks.Callback]) -> None:
        try:
            # One epoch: a run is interrupted and continued after any step.
            with with_others(strategy):
                model.fit(
                    dataset,
                    steps_per_epoch=settings.steps - first_step,
                    callbacks=callbacks,
                    verbose=0,
                    shuffle=False,
                )
        except tf.errors.OpError as error:
            raise name_corrupt(pictures, error) from error

    together = functools.partial(agree, strategy)
    if not is_chief(strategy):
        with Interrupt() as interrupt:
            if not together(False):
                run_steps([Follower(first_step, settings, interrupt, together)])
        return
    validate = None if held_out is None else _validation(model, settings, held_out, cache)
    bar = progress(what="training", total=settings.steps, initial=first_step, layout=_LINE, delay_s=0)
    with bar, Interrupt() as interrupt:
        log = StepLog(run, first_step, bar)
        checkpoint = Checkpoint(run, settings, log, validate, interrupt, together)
        checkpoint.begin(model)
        if not together(is_finished(run.epochs(), settings)):
            run_steps([log, checkpoint, *filter(None, [board])])
        if interrupt.pressed:
            raise checkpoint.interrupted()
    if log.step < settings.steps:
        print(f"ended at step {log.step}: {settings.patience} validations without a better one")
    if log.seconds:
        write_json(
            run.cost_file,
            {"seconds_a_step": statistics.median(log.seconds), "peak_memory_mib": _peak_memory_mib()},
        )


def _validation(
    model: keras.Model, settings: Settings, held_out: Catalogue, cache: PictureCache | None
) -> Callable[[], Metrics]:
    """What gives the validation metrics of the model as it is when called."""
    metrics = RetrievalMetrics(
        evaluation_batches(held_out, settings.preprocessing, cache=cache),
        held_out.labels,
        outputs=settings.levels,
        normalize=False,  # they are of unit norm
    )
    metrics.set_model(model)

    def validate() -> Metrics:
        try:
            return metrics.compute()
        except tf.errors.OpError as error:
            raise name_corrupt(held_out, error) from error

    return validate


def _peak_memory_mib() -> float | None:
    """The largest resident size of this process so far; None where the system doesn't count it."""
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts bytes


def _finish(
    settings: Settings,
    held_out: Catalogue | None,
    run: Run,
    cache: PictureCache | None,
    board: TensorBoard | None,
) -> None:
    """Write `metrics.json`: the best model's whole metrics on the validation classes."""
    rows = run.epochs()
    best = best_epoch(rows)
    result: dict[str, Any] = {"steps": rows[-1]["step"], "best_step": best["step"] if best else None}
    if held_out is not None:
        embeddings = embed(run.best_model(), held_out, settings.preprocessing, cache=cache)
        result["validation"] = evaluate_embeddings(embeddings, held_out.labels)
        if board is not None:
            board.write_embeddings(embeddings, held_out, best["step"] if best else 0)
    write_json(run.metrics_file, result)
    if board is not None:
        board.close()
