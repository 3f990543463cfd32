"""Parsers of EPIC-KITCHENS and THUMOS14 never crash on junk; mined pairs never touch an annotation."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_records.errors import AnnotationError
from tf_records.schema import ClipSpec
from tf_records.sources.epic_kitchens import ACTIONS_NAME, INFO_NAME, VERBS_NAME, read_epic55
from tf_records.sources.mining import mine_pairs
from tf_records.sources.sample import Annotations, Footage, Sample, Segment
from tf_records.sources.thumos14 import read_thumos14

HEADER = (
    *("uid", "participant_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("verb_class", "noun", "noun_class"),
)
GOOD = ("0", "P01", "P01_01", "00:00:01.0", "00:00:02.0", "0", "door", "8")
FILES = {
    ACTIONS_NAME: ",".join(HEADER) + "\n" + ",".join(GOOD) + "\n",
    VERBS_NAME: "verb_id,class_key\n0,take\n",
    INFO_NAME: "video,duration,fps\nP01_01,9.5,59.94\n",
}
CELLS = st.one_of(
    st.sampled_from(
        [*GOOD, "P26", "P26_01", "1", "00:00:01.5", "99:59:59", "", "nan", "٣", "\0", "-1", "1e9"]
    ),
    st.text(max_size=12),
)
BYTES = st.one_of(st.binary(max_size=120), st.text(max_size=120).map(str.encode))
TARGETS = st.sampled_from(["verb", "noun", "action"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


def as_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def read_or_refuse(read: Callable[[], Annotations], path: Path) -> None:
    """A refusal names the file; samples that come back are possible ones."""
    try:
        annotations = read()
    except AnnotationError as error:
        message = str(error)
    else:
        message = path.parent.name
        assert all(sample.end_s > sample.start_s >= 0 for sample in annotations.samples)
        assert all(sample.label in annotations.classes for sample in annotations.samples)
    assert path.parent.name in message


@pytest.mark.parametrize("name", sorted(FILES))
@given(content=BYTES, target=TARGETS, below_header=st.booleans())
def test_any_bytes_in_a_file_of_epic_kitchens_are_read_or_refused(
    folder: Path, name: str, content: bytes, target: str, below_header: bool
) -> None:
    for other, text in FILES.items():
        (folder / other).write_text(text)
    header = FILES[name].splitlines()[0].encode() + b"\n"
    (folder / name).write_bytes(header * below_header + content)
    read_or_refuse(lambda: read_epic55(folder, target, need_videos=False), folder / name)


@given(rows=st.lists(st.lists(CELLS, min_size=6, max_size=9), max_size=4), target=TARGETS)
def test_any_cells_of_epic_kitchens_are_read_or_refused(
    folder: Path, rows: list[list[str]], target: str
) -> None:
    for other, text in FILES.items():
        (folder / other).write_text(text)
    (folder / ACTIONS_NAME).write_bytes(as_csv([list(HEADER), list(GOOD), *rows]))
    read_or_refuse(lambda: read_epic55(folder, target, need_videos=False), folder / ACTIONS_NAME)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["video_validation_0000001  1.0 2.0", "video_validation_0000001 5 6.5 ", "", "x y z"]
        ),
        st.builds(
            "{} {} {}".format,
            st.sampled_from(["video_validation_0000001", "video_test_0000001", ".."]),
            CELLS,
            CELLS,
        ),
        st.text(max_size=40),
    ),
    max_size=5,
)


@given(
    content=st.one_of(BYTES, LINES.map(lambda lines: "\n".join(lines).encode())),
    part=st.sampled_from(["val", "test"]),
)
def test_any_list_of_thumos_is_read_or_refused(folder: Path, content: bytes, part: str) -> None:
    (folder / "Golf_val.txt").write_text("video_validation_0000009  1.0 2.0\n")
    (folder / "Golf_test.txt").write_text("")
    (folder / f"Golf_{part}.txt").write_bytes(content)
    read_or_refuse(lambda: read_thumos14(folder, lead_s=0.5, need_videos=False), folder / "Golf_val.txt")


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 600), st.integers(1, 60), st.integers(0, 9)), max_size=8
)


@given(
    actions=ACTIONS,
    clip=st.builds(ClipSpec, clip_frames=st.integers(1, 12), anticipation_s=st.floats(0, 1.5)),
    fps=st.sampled_from([5.0, 16.0, 29.97]),
    vicinity_s=st.floats(0, 20),
    per_label=st.floats(0, 8),
    seed=st.integers(0, 3),
)
def test_mined_pairs_keep_clear_of_annotations_and_of_tested_videos(
    actions: list[tuple[str, int, int, int]],
    clip: ClipSpec,
    fps: float,
    vicinity_s: float,
    per_label: float,
    seed: int,
) -> None:
    """Times are tenths of a second; one action in ten is for testing, one in ten is left out."""
    first = ("d", 100, 10, 5)
    segments = [
        (Segment(video=v, start_s=a / 10, end_s=(a + n) / 10, split="test" if k == 0 else "train"), k)
        for v, a, n, k in (first, *actions)
    ]
    source = Annotations(
        dataset="made-up",
        samples=tuple(
            Sample(
                id=f"{i}", video=s.video, path="", split=s.split, label="x", start_s=s.start_s, end_s=s.end_s
            )
            for i, (s, k) in enumerate(segments)
            if k != 1
        ),
        classes=("x",),
        segments=tuple(segment for segment, _ in segments),
        footage={name: Footage(path="", fps=fps, duration_s=70.0) for name in "abcd"},
    )
    result = mine_pairs(source, clip, None, per_label=per_label, vicinity_s=vicinity_s, seed=seed)
    mined = [sample for sample in result.samples if sample.label is None]
    labeled = sum(sample.split == "train" for sample in source.samples)
    assert len(mined) == result.options["unlabeled_mining"]["drawn"] <= round(per_label * labeled)
    assert len(mined) == round(per_label * labeled) or result.notes
    for sample in mined:
        begin, end = sample.start_s - clip.offset_at(fps) / fps, sample.end_s
        own = [segment for segment in source.segments if segment.video == sample.video]
        near = [s for s in source.samples if s.video == sample.video]
        assert -1e-9 <= begin < end <= 70.0
        assert all(segment.split == "train" for segment in own)
        assert all(end < segment.start_s or begin > segment.end_s for segment in own)
        assert all(
            any(s.start_s - vicinity_s <= t <= s.end_s + vicinity_s for s in near) for t in (begin, end)
        )
