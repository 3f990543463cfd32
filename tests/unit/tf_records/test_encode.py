"""Frames to pictures: RGB as ever, and the flow that leads to each frame."""

import io

import numpy as np
import pytest
from PIL import Image

from tf_records.encode import EncodedFrame, FrameEncoder, with_frames_before
from tf_records.flow import compute_flow, describe_flow
from tf_records.plan import BuildOptions

RGB = BuildOptions()
FLOW = BuildOptions(modality="flow", flow=describe_flow("dis"))
BOTH = BuildOptions(modality="rgb,flow", flow=describe_flow("dis"))


def sliding(count: int, step: int = 2) -> list[tuple[int, np.ndarray]]:
    """Numbered RGB frames of a smooth texture that moves `step` pixels to the right in each."""
    coarse = np.random.default_rng(1).integers(0, 256, (12, 24, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((192, 64), Image.Resampling.BICUBIC))
    return [(n, wide[:, 96 - step * n : 184 - step * n]) for n in range(count)]


def encode_frames(
    frames: list[tuple[int, np.ndarray]], options: BuildOptions, needed: set[int] | None = None
) -> dict[int, EncodedFrame]:
    encoder, encoded = FrameEncoder(options), {}
    for number, frame in frames:
        if needed is None or number in needed:
            encoded[number] = encoder.encode(number, frame)
        encoder.remember(number, frame)
    return encoded


def picture(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def stored_flow(frame: dict[str, tuple[bytes, ...]]) -> np.ndarray:
    """Pixels, `(H, W, 2)`."""
    return np.stack([(picture(jpeg).astype(float) - 128) / 127 * 20 for jpeg in frame["flow"]], axis=-1)


def test_flow_leads_from_the_frame_before_and_is_stored_to_a_step_and_jpegs_loss() -> None:
    frames = sliding(4)
    encoded = encode_frames(frames, FLOW)
    assert [list(frame) for frame in encoded.values()] == [["flow"]] * 4
    for number in (1, 2, 3):
        grey = [np.asarray(Image.fromarray(frames[n][1]).convert("L")) for n in (number - 1, number)]
        flow = compute_flow(*grey, FLOW.flow)
        assert np.median(flow[..., 0]) == pytest.approx(2, abs=0.1)
        assert np.abs(stored_flow(encoded[number]) - np.clip(flow, -20, 20)).max() < 4 * 20 / 127
        assert {picture(jpeg).shape for jpeg in encoded[number]["flow"]} == {(64, 88)}


def test_the_first_frame_of_a_video_and_one_shown_again_have_exactly_no_flow() -> None:
    (_, still), *_ = sliding(1)
    encoded = encode_frames([(0, still), (1, still)], FLOW)
    for frame in encoded.values():
        assert all((picture(jpeg) == 128).all() for jpeg in frame["flow"])


def test_both_modalities_are_what_each_is_alone() -> None:
    frames = sliding(3)
    rgb, flow, both = (encode_frames(frames, options) for options in (RGB, FLOW, BOTH))
    assert both == {n: {**rgb[n], **flow[n]} for n in range(3)}
    assert list(both[0]) == ["rgb", "flow"]
    assert np.abs(picture(rgb[1]["rgb"][0]).astype(int) - frames[1][1]).mean() < 4


def test_only_the_needed_frames_are_encoded_and_their_flow_needs_the_frame_before() -> None:
    frames = sliding(6)
    needed = {2, 3, 5}
    assert with_frames_before(needed, FLOW) == {1, 2, 3, 4, 5}
    assert with_frames_before({0, 1}, BOTH) == {0, 1}
    assert with_frames_before(needed, RGB) == needed
    whole = encode_frames(frames, FLOW)
    given = [frames[n] for n in (1, 2, 3, 4, 5)]
    assert encode_frames(given, FLOW, needed) == {n: whole[n] for n in needed}
    assert set(encode_frames(frames, RGB, needed)) == needed
    with pytest.raises(ValueError, match="flow of frame 5 needs frame 4"):
        encode_frames([frames[3], frames[5]], FLOW, {5})
    with pytest.raises(ValueError, match="flow of frame 2 needs frame 1"):
        encode_frames([frames[2]], FLOW, {2})
