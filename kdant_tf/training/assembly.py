"""From a job to the networks it trains, with their first weights, and the batches they see."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

from kdant_tf.config import COUNTED_BALANCES, TrainConfig
from kdant_tf.losses.classification import class_weights
from kdant_tf.models.baselines import HEAD, STEM
from kdant_tf.models.i3d_stem import build_head
from kdant_tf.models.networks import build_network, load_teacher, set_precision
from kdant_tf.models.weights import initialize, pretrained_variables
from kdant_tf.private_apis import layers_within, own_state_of
from kdant_tf.runs import manifest_sha256
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.job import Job
from kdant_tf.training.optimizer import l2_factor, make_optimizer
from kdant_tf.training.strategy import chief_first, choose_xla
from kdant_tf.training.weight_average import WeightAverage
from tf_records.errors import RunError
from tf_records.features import write_feature_records
from tf_records.heads import are_times, column_slices
from tf_records.records import Records
from tf_records.remote_path import RemotePath
from tf_records.schema import FEATURES_FOLDER, FeatureInfo

# Of the focal loss; Lin et al. 2017 found 2 best.
_FOCUSING = 2.0
BatchNorms = tuple[keras.layers.BatchNormalization, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """Networks and data of one training.

    Args:
        network: the whole network, which is saved.
        distiller: trains `network`, or the part of it that learns.
        records: what the distiller's networks see: the job's, or features of their frames.
        batch_norms: of `network`, those that are synchronised or frozen while it is trained.
        average: of what learns, where `ema_decay` asks for it.
    """

    network: keras.Model
    distiller: Distiller
    records: Records
    batch_norms: BatchNorms = ()
    average: WeightAverage | None = None


def assemble(job: Job, *, load_weights: bool, report: Callable[[str], None]) -> Assembly:
    """Builds networks and optimizer; to be called in the strategy's scope.

    On records of features, an I3D is built from them on. Where every network is a frame-mlp on the same
    frozen backbone, its features are computed once, kept beside the records, and the MLPs alone are
    trained.

    Args:
        job: prepared.
        load_weights: whether to load the first weights; False where a checkpoint will bring them.
        report: called with a line on what takes long.

    Raises:
        KdantError: weights that cannot be had, or a teacher and a student that do not fit.
    """
    config = job.run.config
    network = _build_network(job, load_weights)
    teacher = None if job.teacher is None else load_teacher(job.teacher, config)
    networks = [network] if teacher is None else [network, teacher]
    if _share_frozen_stem(networks):
        records = _records_of_features(job, network.get_layer(STEM), report)
        networks = [each.get_layer(HEAD) for each in networks]
    else:
        records = job.records
    for each in networks:
        set_precision(each, config.precision)
    batch_norms = prepare_batch_norm(networks[0], config)
    distiller = _build_distiller(job, *networks, pretrained=pretrained_variables(network, config.init))
    average = None
    if config.ema_decay > 0:
        learning = [*distiller.trainable_variables, *_find_statistics(distiller.student)]
        average = WeightAverage(learning, config.ema_decay)
    return Assembly(
        network=network, distiller=distiller, records=records, batch_norms=batch_norms, average=average
    )


def _build_network(job: Job, load_weights: bool) -> keras.Model:
    config, classes, modality = job.run.config, job.run.classes, job.run.modality
    if job.run.features is not None and config.model == "i3d":
        return build_head(config, classes, job.clip_shape, modality=modality, load_weights=load_weights)
    network = build_network(config, len(classes), job.input_shape)
    if load_weights or config.model == "frame-mlp":
        initialize(network, config.init, modality=modality, classes=classes)
    return network


def _build_distiller(
    job: Job,
    student: keras.Model,
    teacher: keras.Model | None = None,
    *,
    pretrained: Iterable[keras.Variable],
) -> Distiller:
    config = job.run.config
    try:
        distiller = Distiller(
            student,
            teacher,
            view=job.views[0],
            soft_weight=config.soft_weight,
            temperature=config.temperature,
            feature_loss="none" if teacher is None else config.feature_loss,
            feature_weight=config.feature_weight,
            projection=config.projection,
            alpha=config.alpha,
            locality=config.locality,
            normalization=config.feature_normalization,
            penalty=config.penalty,
            delta=config.huber_delta,
            reduction=config.reduction,
            label_smoothing=config.label_smoothing,
            class_weights=_class_weights(job),
            focusing=_FOCUSING if config.class_balance == "focal" else 0.0,
            weight_decay=l2_factor(config),
            clip_norm=config.largest_gradient_norm,
            mixup=config.mixup,
            cutmix=config.cutmix,
            seed=config.seed,
            gradient_accumulation=config.gradient_accumulation,
            xla=choose_xla(job.run.execution.xla, tf.distribute.get_strategy()),
            heads=job.run.heads,
        )
    except ValueError as error:
        raise RunError(f"Teacher and student do not fit: {error}") from error
    distiller.compile(optimizer=make_optimizer(config, pretrained))
    distiller.optimizer.build(distiller.trainable_variables)
    return distiller


def _class_weights(job: Job) -> tuple[float, ...] | None:
    balance, counts = job.run.config.class_balance, job.class_counts
    if balance not in COUNTED_BALANCES or counts is None or not any(counts):
        return None
    heads = () if are_times(job.run.heads) else job.run.heads
    slices = [*column_slices(heads).values()] or [slice(len(counts))]
    return tuple(weight for columns in slices for weight in class_weights(counts[columns], balance))


def _share_frozen_stem(networks: list[keras.Model]) -> bool:
    if any(network.name != "frame_mlp" for network in networks):
        return False
    return len({_digest(network.get_layer(STEM)) for network in networks}) == 1


def _records_of_features(job: Job, stem: keras.Model, report: Callable[[str], None]) -> Records:
    """Records of the stem's features, made on first use in a folder within the records'."""
    records, crop = job.records, job.run.config.crop
    if isinstance(records.folder, RemotePath):
        raise RunError(
            f"frame-mlp keeps its frame features in the record folder, which must be local. Received: "
            f"{records.folder}. Copy the records to this machine."
        )
    made_of = [_digest(stem), manifest_sha256(records.folder), str(crop), *job.run.left_out]
    key = hashlib.sha256(" ".join(made_of).encode()).hexdigest()
    folder = records.folder / FEATURES_FOLDER / key[:16]
    clip_frames = job.run.clip.clip_frames

    def compute(frames: tf.Tensor) -> tf.Tensor:
        # (clips · T, H, W, C) → (clips, T, H, W, C) → (clips, T, d) → (clips · T, d)
        clips = tf.reshape(frames, (-1, *job.input_shape))
        return tf.reshape(stem(clips, training=False), (-1, stem.output.shape[-1]))

    def report_progress(done: int, total: int) -> None:
        if done * 10 // total != (done - 1) * 10 // total:
            report(f"frame features: {done}/{total} records")

    if not folder.exists():
        report(f"Computing frame features once, into {folder}")
    with chief_first(tf.distribute.get_strategy()):
        write_feature_records(
            records,
            folder,
            compute,
            FeatureInfo(shape=(stem.output.shape[-1],), source=f"{_backbone_name(stem)}, {crop} px"),
            crop=crop,
            batch_frames=clip_frames * max(1, 32 // clip_frames),
            on_record=report_progress,
        )
    return Records.open(folder)


def _digest(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for variable in network.weights:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


def _backbone_name(stem: keras.Model) -> str:
    return str(next(layer.name for layer in stem.layers if isinstance(layer, keras.Model)))


# Batch normalisation while a network is trained: Keras' flags `synchronized` and `trainable` of the layers
# are set for the training alone, so that what is saved is a plain network.


def prepare_batch_norm(network: keras.Model, config: TrainConfig) -> BatchNorms:
    """Sets what `sync_batch_norm` and `freeze_batch_norm` ask for; returns the layers that were changed.

    A frozen one normalises by its moving statistics and keeps them, scale and shift, as everywhere in Keras
    where `trainable` is False: the layer is then a constant, which no small batch can move.

    Args:
        network: that will be trained, before its step is traced and its optimizer built.
        config: the settings.

    Raises:
        RunError: the network has no batch normalisation that learns.
    """
    if not (config.sync_batch_norm or config.freeze_batch_norm):
        return ()
    found = _find_batch_norms(network)
    if not found:
        name = "sync_batch_norm" if config.sync_batch_norm else "freeze_batch_norm"
        raise RunError(
            f"Setting `{name}` is for networks with batch normalisation that learns, and {config.model} has "
            f"none. Leave it out."
        )
    for layer in found:
        layer.synchronized = config.sync_batch_norm
        layer.trainable = not config.freeze_batch_norm
    return found


@contextlib.contextmanager
def plain_batch_norm(changed: BatchNorms) -> Iterator[None]:
    """Within the block, which saves the network, the layers are as `prepare_batch_norm` found them."""
    flags = [(layer.synchronized, layer.trainable) for layer in changed]
    for layer in changed:
        layer.synchronized, layer.trainable = False, True
    try:
        yield
    finally:
        for layer, (synchronized, trainable) in zip(changed, flags, strict=True):
            layer.synchronized, layer.trainable = synchronized, trainable


def agree_on_statistics(
    network: keras.Model, strategy: tf.distribute.Strategy, average: WeightAverage | None = None
) -> None:
    """Gives every device the mean over devices of moving statistics; to be called on all workers.

    Each device keeps those of its own share of the batches. A moving average of means is the mean of moving
    averages, so that it makes no difference when, or how often, this is done during a training. So are their
    averages in `average`.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    statistics = [*_find_statistics(network), *([] if average is None else average.of_statistics)]
    if not statistics:
        return

    def take_mean() -> None:
        # Copies, since what is read of a variable names no device to reduce to.
        values = [tf.identity(variable.value) for variable in statistics]
        replica = tf.distribute.get_replica_context()
        assert replica is not None
        for variable, mean in zip(statistics, replica.all_reduce("MEAN", values), strict=True):
            variable.assign(mean)

    tf.function(lambda: strategy.run(take_mean), autograph=False)()


def _find_batch_norms(network: keras.Model) -> BatchNorms:
    layers = layers_within(network)
    return tuple(
        each for each in layers if isinstance(each, keras.layers.BatchNormalization) and each.trainable
    )


def _find_statistics(network: keras.Model) -> list[keras.Variable]:
    """What layers that learn keep beside their weights, but for whole numbers, such as dropout's seeds."""
    layers = [each for each in layers_within(network) if each.trainable]
    found = {id(each): each for layer in layers for each in own_state_of(layer)}
    return [each for each in found.values() if "float" in each.dtype]
