"""Times of calls: turns, shares and percentiles, of models that answer at once; clips; a frozen export."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import RestServer, ServedModel

from kdant_tf.serving.benchmark import (
    Call,
    CallTimes,
    TimedModel,
    _share,
    draw_clips,
    open_served,
    time_calls,
    time_threads,
)
from kdant_tf.serving.model import AnticipationModel, load_model
from kdant_tf.serving.server import Server
from tf_records.schema import ClipSpec


def make_model(modality: str = "rgb") -> AnticipationModel:
    """Answers with the brightness of the clips."""
    return AnticipationModel(
        name="",
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=4),
        modality=modality,
        short_side=32,
        fps=None,
        anticipates=True,
        infer=lambda clips: np.stack([clips.mean(axis=(1, 2, 3, 4))] * 2, axis=1).astype(np.float32),
    )


def timed(name: str, signatures: Mapping[str, Mapping[str, object]], asked: list[str]) -> TimedModel:
    """Signature → parts before the network, which do nothing; `asked` gets what is called."""

    def call(signature: str, parts: Mapping[str, object]) -> Call:
        before = {part: lambda part=part: asked.append(f"{name} {signature} {part}") for part in parts}
        return Call(whole=lambda: asked.append(f"{name} {signature}"), before=before)  # type: ignore[arg-type, return-value]

    return TimedModel(
        name=name,
        model=make_model(),
        make_calls=lambda clips: {key: call(key, parts) for key, parts in signatures.items()},
    )


def test_models_take_turns_and_are_compared_with_the_first_where_it_has_the_signature() -> None:
    asked: list[str] = []
    rounds: list[int] = []
    models = [
        timed("run", {"serving_default": {}}, asked),
        timed("export", {"serving_default": {"preprocess": 0}, "encoded": {}}, asked),
    ]
    times = time_calls(
        models, batch_size=2, height=8, width=8, repeats=3, on_round=lambda: rounds.append(len(asked))
    )
    turn = ["run serving_default", "export serving_default", "export encoded"]
    turn.insert(2, "export serving_default preprocess")
    assert asked[:4] == turn
    assert asked == turn * len(rounds)
    assert rounds == [4 * number for number in range(1, len(rounds) + 1)]
    assert [(each.model, each.signature, len(each.seconds)) for each in times] == [
        ("run", "serving_default", 3),
        ("export", "serving_default", 3),
        ("export", "encoded", 3),
    ]
    assert [each.ratio is None for each in times] == [True, False, True]
    assert [set(each.shares) for each in times] == [set(), {"preprocess", "compute"}, set()]
    described = times[1].to_dict()
    assert described["batch_size"] == 2
    assert described["minimum_s"] == times[1].seconds[0] <= described["p50_s"] <= described["p99_s"]


def test_threads_get_the_answers_that_one_gets() -> None:
    result = time_threads(timed("run", {}, []), threads=3, height=8, width=8, repeats=1)
    assert (result.model, result.threads, result.largest_difference) == ("run", 3, 0.0)
    assert min(result.alone, result.together) > 0


def test_a_server_is_asked_for_what_tells_probabilities(exported: Path, served: ServedModel) -> None:
    server = RestServer(served)
    server.start()
    model = open_served(Server(host="127.0.0.1", port=server.port), exported)
    clips = draw_clips(model.model, 1, 40, 48)
    calls = model.make_calls(clips)
    assert set(calls) == {"serving_default", "encoded", "features"}
    answers = [call.whole() for call in calls.values()]
    server.stop()
    expected = load_model(exported).probabilities(clips)
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert {name: (set(call.before), call.rest) for name, call in calls.items()} == {
        "serving_default": (set(), "answer"),
        "encoded": ({"encode"}, "answer"),
        "features": (set(), "answer"),
    }


@given(st.lists(st.floats(0, 2), min_size=1, max_size=3), st.floats(0.1, 1.5))
def test_shares_are_parts_of_a_whole(ends: list[float], whole: float):
    shares = _share({str(number): end for number, end in enumerate(ends)}, whole, "rest")
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1)


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=40), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_those_of_numpy(seconds: list[float], percent: int):
    row = CallTimes(
        model="",
        signature="",
        batch_size=1,
        seconds=tuple(sorted(seconds)),
        shares={},
        ratio=None,
    )
    assert row.percentile_s(percent) == np.percentile(seconds, percent, method="inverted_cdf")


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("flow", 2), ("rgb,flow", 5)])
def test_clips_are_drawn_for_every_modality(modality: str, channels: int):
    model = make_model(modality)
    clips = draw_clips(model, 2, 33, 50)
    assert (clips.shape, clips.dtype) == ((2, 4, 33, 50, channels), np.uint8)
    np.testing.assert_array_equal(clips, draw_clips(model, 2, 33, 50))
    assert np.any(clips[0] != clips[1])
