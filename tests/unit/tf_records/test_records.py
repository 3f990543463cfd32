"""An opened record folder as a dataset: what `fit` is given, and that every pass is drawn anew."""

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_records.errors import RecordError
from tf_records.reader import evaluation_batches, training_batches
from tf_records.records import Records


@pytest.fixture(scope="module")
def opened(record_folder: Path) -> Records:
    return Records.open(str(record_folder))


def read(data: tf.data.Dataset) -> list[dict[str, np.ndarray]]:
    return list(data.as_numpy_iterator())


def same(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a
    )


@pytest.mark.slow
@pytest.mark.parametrize("labeled_only", [False, True])
def test_pass_k_is_epoch_k_of_the_exact_reader(opened: Records, labeled_only: bool) -> None:
    tf.random.set_seed(7)  # Both orders depend on it too.
    view = "either" if labeled_only else None
    data = opened.dataset(view=view, batch_size=3, crop=32, seed=7)
    for epoch in range(3):
        exact = training_batches(
            opened,
            views=("either",) if labeled_only else ("observed", "future"),
            batch_size=3,
            crop=32,
            seed=7,
            epoch=epoch,
            labeled_only=labeled_only,
        )
        got = read(data)
        if labeled_only:
            got = [{"either": clip, "label": label} for clip, label in got]
            exact = exact.map(lambda batch: {key: batch[key] for key in ("either", "label")})
        assert len(data) == len(got) > 0
        assert same(got, read(exact))


@pytest.mark.slow
def test_a_global_seed_of_0_draws_too(opened: Records) -> None:
    tf.random.set_seed(0)
    data = opened.dataset(batch_size=4, crop=32)
    assert sorted(np.concatenate([batch["index"] for batch in read(data)])) == list(range(20))


@pytest.mark.slow
def test_two_passes_differ_and_two_datasets_of_one_seed_agree(opened: Records) -> None:
    one, two, other = (opened.dataset(batch_size=5, crop=32, seed=seed) for seed in (1, 1, 2))
    passes = [(read(one), read(two)) for _ in range(2)]
    assert all(same(first, second) for first, second in passes)
    assert not same(passes[0][0], passes[1][0])
    assert not same(passes[0][0], read(other))


@pytest.mark.slow
def test_the_count_of_passes_outlives_the_dataset_it_was_made_for(opened: Records) -> None:
    data = opened.dataset(batch_size=4, crop=32).map(lambda batch: batch["index"]).repeat(2)
    gc.collect()
    orders = np.array(list(data.as_numpy_iterator())).reshape(2, -1)
    again = np.array(list(data.as_numpy_iterator())).reshape(2, -1)
    assert all(sorted(order) == list(range(20)) for order in (*orders, *again))
    assert len({tuple(order) for order in (*orders, *again)}) == 4


@pytest.mark.slow
def test_a_view_gives_pairs_that_plain_fit_takes(opened: Records) -> None:
    import keras

    clip = keras.Input((8, 16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling3D()(clip)
    model = keras.Model(clip, keras.layers.Dense(4)(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    data = opened.dataset(view="observed", batch_size=4, crop=16)
    held_out = opened.dataset(split="test", view="observed", batch_size=3, crop=16)
    history = model.fit(data, validation_data=held_out, epochs=2, verbose=0, shuffle=False).history
    assert len(history["loss"]) == 2
    assert np.isfinite([history["loss"], history["val_loss"]]).all()


@pytest.mark.slow
def test_without_training_the_middle_clips_come_in_order(opened: Records) -> None:
    data = opened.dataset(split="test", batch_size=3)
    batches = read(data)
    assert len(data) == len(batches) == 3
    assert same(batches, read(data))
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == list(range(8))
    for view in ("observed", "future"):
        middle = evaluation_batches(opened, split="test", view=view, batch_size=8, crop=56, windows=1)
        (expected,) = read(middle)
        np.testing.assert_array_equal(np.concatenate([batch[view] for batch in batches]), expected["clip"])


def test_training_records_can_be_read_without_drawing(opened: Records) -> None:
    pairs = list(opened.dataset(view="future", training=False, crop=16).as_numpy_iterator())
    labels = np.concatenate([label for _, label in pairs])
    recorded, _ = opened.labels_and_videos("train")
    assert labels.tolist() == recorded[recorded >= 0].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 21}, "has 20 records to train on, fewer than a batch of 21"),
        ({"batch_size": 17, "view": "future"}, "has 16 labelled records"),
        ({"batch_size": 0}, "`batch_size` should be at least 1"),
        ({"split": "val"}, "has no records in split 'val'"),
        ({"split": "test", "view": "either"}, "should be None or one of observed, future"),
        ({"split": "test", "training": True}, "`training` should be False for split 'test'"),
        ({"clip_frames": 16}, "has clips of 8 frames, the run wants 16"),
    ],
)
def test_what_cannot_be_given_is_refused_in_a_sentence(opened: Records, options: dict, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        opened.dataset(**options)


@pytest.mark.slow
def test_a_shard_left_out_shortens_the_dataset(record_folder: Path, tmp_path: Path) -> None:
    from tf_records.plan import BuildOptions
    from tf_records.schema import ClipSpec
    from tf_records.sources.synthetic import read_synthetic
    from tf_records.writer import build_records

    folder = tmp_path / "shards"
    options = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=8), short_side=32, shards=5)
    build_records(read_synthetic(record_folder.parent / "videos"), str(folder), options)
    path = folder / "train-00001-of-00005.tfrecord"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    data = Records.open(folder, skip_damaged=True).dataset(batch_size=4, crop=16)
    assert len(data) == len(read(data)) == 4
    shutil.rmtree(folder)
