"""What is written is what is read: manifests, records, and the windows cut from them."""

import json
import string

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_records.augment import clip_indices, window_starts
from tf_records.encode import Segments, to_example
from tf_records.errors import RecordError
from tf_records.files import seal
from tf_records.manifest import Manifest, ShardInfo, Skipped, SplitInfo, load_manifest
from tf_records.plan import FrameRange, Spacing, pair_for_training
from tf_records.schema import ClipSpec, FlowInfo
from tf_records.sources.sample import Sample

WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
COUNTS = st.integers(0, 10**12)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)
SHARDS = st.builds(
    ShardInfo,
    file=WORDS,
    records=COUNTS,
    bytes=COUNTS,
    sha256=st.text(string.hexdigits),
    classes=st.dictionaries(WORDS, COUNTS, max_size=3),
    seconds=st.floats(0, 1e9),
)
SPLITS = st.builds(
    SplitInfo,
    labeled=COUNTS,
    unlabeled=COUNTS,
    shortened_offset=COUNTS,
    repeated=COUNTS,
    shards=st.lists(SHARDS, max_size=2).map(tuple),
)
MANIFESTS = st.builds(
    Manifest,
    dataset=WORDS,
    clip=st.one_of(
        st.builds(ClipSpec, clip_frames=st.integers(1, 99), offset_frames=st.integers(1, 99)),
        st.builds(ClipSpec, clip_frames=st.integers(1, 99), anticipation_s=st.floats(0, 60)),
    ),
    classes=st.lists(WORDS, max_size=4).map(tuple),
    splits=st.dictionaries(st.sampled_from(["train", "val", "test"]), SPLITS),
    options=st.dictionaries(WORDS, st.one_of(st.integers(), st.floats(allow_nan=False), WORDS), max_size=2),
    fps=st.one_of(st.none(), st.floats(1, 240)),
    short_side=st.integers(16, 999),
    jpeg_quality=st.integers(1, 100),
    plan_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    skipped=st.lists(st.builds(Skipped, video=WORDS, reason=WORDS), max_size=2).map(tuple),
    absent=st.dictionaries(WORDS, st.lists(WORDS, max_size=2), max_size=2),
    modality=st.sampled_from(["rgb", "flow", "rgb,flow"]),
    flow=st.one_of(
        st.none(),
        st.builds(
            FlowInfo,
            algorithm=WORDS,
            parameters=st.dictionaries(WORDS, st.one_of(st.integers(), WORDS), max_size=2),
            bound=st.floats(1, 99),
            opencv=WORDS,
        ),
    ),
)


@given(MANIFESTS)
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(MANIFESTS)
def test_the_same_manifest_is_the_same_text(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()


@given(manifest=MANIFESTS, place=st.integers(0), bits=st.integers(1, 255))
def test_any_changed_byte_of_a_manifest_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, place: int, bits: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped" / "manifest.json"
    path.parent.mkdir(exist_ok=True)
    content = bytearray(manifest.to_json().encode())
    path.write_bytes(content)
    assert load_manifest(path.parent) == manifest
    content[place % len(content)] ^= bits
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"manifest\.json cannot be read"):
        load_manifest(path.parent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "field",
    ["clip", "splits", "skipped", "classes", "modality", "flow", "features", "format_version", "colour"],
)
@settings(max_examples=25)
@given(value=JSON)
def test_a_manifest_with_a_spoilt_field_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoilt"
    folder.mkdir(exist_ok=True)
    whole = Manifest(
        dataset="csv",
        clip=ClipSpec(),
        classes=(),
        splits={},
        options={},
        fps=None,
        short_side=64,
        jpeg_quality=95,
        plan_sha256="0" * 64,
    )
    fields = {**json.loads(whole.to_json()), field: value}
    del fields["sha256"]
    text = seal(json.dumps(fields, indent=1) + "\n")
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    try:
        load_manifest(folder)
    except RecordError as error:
        message = str(error)
    else:
        message = "manifest.json"
    assert "manifest.json" in message


@given(
    frames=st.integers(1, 60),
    spacing=st.builds(Spacing, clip_frames=st.integers(1, 16), offset_frames=st.integers(1, 30)),
    fps=st.floats(1, 120),
    label=st.one_of(st.none(), st.sampled_from(["bow", "wave"])),
    name=WORDS,
)
def test_a_record_gives_back_frames_times_and_label(
    frames: int, spacing: Spacing, fps: float, label: str | None, name: str
) -> None:
    pair = pair_for_training(frames, FrameRange(0, frames), spacing)
    encoded = {n: {"rgb": (b"%d" % n,)} for n in range(frames)}
    segments = Segments(pair=pair, frames=encoded, fps=fps, height=48, width=64)
    sample = Sample(id=name, video=name, path="/x", split="train", label=label)
    record = b"".join(to_example(sample, segments, ("bow", "wave")))
    example = tf.train.SequenceExample.FromString(record)
    context = example.context.feature
    for view, window in (("observed", pair.observed), ("future", pair.future)):
        listed = example.feature_lists.feature_list[f"{view}/image/encoded"].feature
        assert [int(feature.bytes_list.value[0]) for feature in listed] == list(range(*window))
        assert context[f"{view}/start_s"].float_list.value[0] == pytest.approx(window.first / fps)
    assert context["clip/id"].bytes_list.value[0].decode() == name
    assert context["clip/label/index"].int64_list.value[0] == {None: -1, "bow": 0, "wave": 1}[label]
    assert context["clip/offset_frames"].int64_list.value[0] == pair.offset_frames


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 12))
def test_windows_rise_fit_and_reach_both_ends(frames: int, clip_frames: int, windows: int) -> None:
    starts = window_starts(tf.constant(frames), clip_frames, windows).numpy()
    last = max(frames - clip_frames, 0)
    assert len(starts) == min(windows, last + 1)
    assert np.all(np.diff(starts) > 0)
    if windows > 1:
        assert starts[0] == 0
        assert starts[-1] == last
        assert len(starts) == 1 or np.ptp(np.diff(starts)) <= 1
    else:
        assert abs(2 * starts[0] - last) <= 1


@settings(max_examples=40)
@given(st.integers(1, 100), st.integers(1, 64), st.data())
def test_clips_run_forward_and_stay_inside_the_segment(
    frames: int, clip_frames: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, max(frames - clip_frames, 0)))
    indices = clip_indices(tf.constant(frames), tf.constant(start), clip_frames).numpy()
    assert indices.min() >= 0
    assert indices.max() < frames
    assert np.all((np.diff(indices) == 1) | ((indices[1:] == 0) & (indices[:-1] == frames - 1)))
    if frames >= clip_frames:
        assert indices.tolist() == list(range(start, start + clip_frames))
