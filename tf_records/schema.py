"""What a record holds: keys, clips, flow and features. No TensorFlow.

One `tf.train.SequenceExample` holds one pair of segments on one clock, with keys in the manner of
MediaSequence, so that other readers understand them.
"""

import dataclasses
import math
from typing import Any

from tf_records.errors import RecordError

# Within a record folder: what networks computed from its frames.
FEATURES_FOLDER = "frame-features"
# Within a record folder of features: the frames, for as long as it is being built from videos.
FRAMES_FOLDER = ".frames"
UNLABELED = -1
# Frames between the first frames of a pair: the paper's tau on JHMDB (§4.2).
DEFAULT_OFFSET_FRAMES = 15
MAX_FPS = 1000

CLIP_ID = "clip/id"
CLIP_VIDEO = "clip/video"
CLIP_OFFSET_FRAMES = "clip/offset_frames"
# Of records of several anticipation times: which of them, counted from 0.
TIME_INDEX = "clip/time/index"
LABEL_INDEX = "clip/label/index"
LABEL_STRING = "clip/label/string"
OBSERVED_START_S = "observed/start_s"
FUTURE_START_S = "future/start_s"
FRAME_RATE = "image/frame_rate"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_CHANNELS = "image/channels"
OBSERVED_IMAGES = "observed/image/encoded"
FUTURE_IMAGES = "future/image/encoded"

OBSERVED_FLOW_U = "observed/flow/u/encoded"
OBSERVED_FLOW_V = "observed/flow/v/encoded"
FUTURE_FLOW_U = "future/flow/u/encoded"
FUTURE_FLOW_V = "future/flow/v/encoded"

OBSERVED_FEATURES = "observed/feature/raw"
FUTURE_FEATURES = "future/feature/raw"
FEATURE_SHAPE = "feature/shape"

OBSERVED = "observed"
FUTURE = "future"
EITHER = "either"
VIEW_IMAGES = {OBSERVED: OBSERVED_IMAGES, FUTURE: FUTURE_IMAGES}
VIEW_FEATURES = {OBSERVED: OBSERVED_FEATURES, FUTURE: FUTURE_FEATURES}
RGB = "rgb"
FLOW = "flow"
# What a record folder may hold of each frame.
MODALITIES = (RGB, FLOW, f"{RGB},{FLOW}")
CHANNELS = {RGB: 3, FLOW: 2}
# 8 bits hold a flow of zero exactly, and ± its bound that many steps above and below.
FLOW_ZERO = 128
FLOW_STEPS = 127
# Modality → view → the keys of its pictures, in the order of `EncodedFrame`.
VIEW_KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    RGB: {view: (key,) for view, key in VIEW_IMAGES.items()},
    FLOW: {OBSERVED: (OBSERVED_FLOW_U, OBSERVED_FLOW_V), FUTURE: (FUTURE_FLOW_U, FUTURE_FLOW_V)},
}
SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """Length of a clip, and how far the two clips of a pair are apart.

    The distance is given in one of two ways, as the paper does.

    Args:
        clip_frames: int >= 1, frames in each clip (JHMDB: 8, §4.2).
        offset_frames: int >= 1, first frame of the future clip minus first frame of the observed
            clip (JHMDB: the paper's tau = 15 frames, §4.2). 15 where neither distance is given.
        anticipation_s: float >= 0, seconds from the end of the observed clip to the start of the
            future one (EPIC-KITCHENS and THUMOS14: the paper's tau = 1 s, §4.3, §4.4).
    """

    clip_frames: int = 8
    offset_frames: int | None = None
    anticipation_s: float | None = None

    def __post_init__(self) -> None:
        if self.offset_frames is None and self.anticipation_s is None:
            object.__setattr__(self, "offset_frames", DEFAULT_OFFSET_FRAMES)
        if self.offset_frames is not None and self.anticipation_s is not None:
            raise RecordError(
                f"Only one of `offset_frames` and `anticipation_s` should be given. "
                f"Received: {self.offset_frames} and {self.anticipation_s}."
            )
        for name in ("clip_frames", "offset_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecordError(f"`{name}` should be at least 1. Received: {value}.")
        if self.anticipation_s is not None and not 0 <= self.anticipation_s < math.inf:
            raise RecordError(
                f"`anticipation_s` should be a number of seconds, at least 0. "
                f"Received: {self.anticipation_s}."
            )

    def offset_at(self, fps: float) -> int:
        """First frame of the future clip minus first frame of the observed one, on a clock of `fps`."""
        if self.anticipation_s is not None:
            return self.clip_frames + round(self.anticipation_s * fps)
        assert self.offset_frames is not None  # __post_init__ has made sure of it
        return self.offset_frames

    @property
    def distance(self) -> str:
        """The distance of the two clips in words."""
        if self.anticipation_s is not None:
            return f"{self.anticipation_s:g} s from one to the other"
        return f"offset {self.offset_frames}"


# Pixels of a clip for each position of I3D's map at MaxPool3d_4a_3x3.
MAP_STRIDE = 16
PER_FRAME = "frame"
PER_CLIP = "clip"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowInfo:
    """How optical flow was computed and stored.

    Args:
        algorithm: a key of `flow.ALGORITHMS`.
        parameters: of the algorithm, under OpenCV's names.
        bound: pixels a frame; flow is clipped to ± this, and stored in 8 bits.
        opencv: its version.
    """

    algorithm: str
    parameters: dict[str, Any]
    bound: float
    opencv: str

    def __str__(self) -> str:
        parameters = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"{self.algorithm} ({parameters}), ±{self.bound:g} pixels, OpenCV {self.opencv}"

    def fits(self, other: "FlowInfo") -> bool:
        """Whether a network that learned from this flow can be used on the `other`, of whatever OpenCV."""
        return dataclasses.replace(self, opencv=other.opencv) == other


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInfo:
    """What stands in place of the frames: float16 maps that a network made of them.

    Args:
        shape: of an entry. Of a clip's map: (T, H, W, C), with None for H and W where records differ
            in the size of their frames; each record has its own shape.
        source: where the network's weights came from, in words.
        per: what an entry stands for: PER_FRAME, or PER_CLIP, a whole clip.
        endpoint: layer of the network that the maps are of (PER_CLIP).
        width: of an I3D.
        weights_sha256: of the layers up to `endpoint`; two maps agree only where these do.
        crop: pixels of the central square that the network saw; None for whole frames.
        windows: clips a segment, at most.
        records_sha256: of the manifest of the frames' records.
        network: whose layer `endpoint` is: i3d, or one that sees each frame alone, such as mobilenet_v2.
        stride: pixels of the frame for each position of the map.
    """

    shape: tuple[int | None, ...]
    source: str
    per: str = PER_FRAME
    endpoint: str | None = None
    width: float | None = None
    weights_sha256: str | None = None
    crop: int | None = None
    windows: int | None = None
    records_sha256: str | None = None
    network: str = "i3d"
    stride: int = MAP_STRIDE

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "FeatureInfo":
        """Inverse of `dataclasses.asdict`, also after JSON."""
        return cls(**{**fields, "shape": tuple(fields["shape"])})

    @property
    def words(self) -> str:
        """For tables and errors: "MaxPool3d_4a_3x3 of I3D (kinetics, width 1), whole frames"."""
        if self.per == PER_FRAME:
            return self.source
        seen = "whole frames" if self.crop is None else f"central {self.crop} px"
        network = "I3D" if self.width is not None else self.network
        width = "" if self.width is None else f", width {self.width:g}"
        return f"{self.endpoint} of {network} ({self.source}{width}), {seen}"

    @property
    def stem_options(self) -> str:
        """What `kdant extract-features` wants beside --init for the same layer."""
        return "" if self.network == "i3d" else f" --model {self.network} --endpoint {self.endpoint}"

    def map_side(self, crop: int) -> int:
        """Positions a side that the network makes of `crop` pixels."""
        return -(-crop // self.stride)

    @property
    def shape_words(self) -> str:
        """Such as "8x16x?x480"; "?" where records differ."""
        return "x".join("?" if size is None else str(size) for size in self.shape)

    def fits(self, other: "FeatureInfo") -> bool:
        """Whether a network that learned from these features can be used on the `other` ones."""
        names = ("per", "network", "endpoint", "weights_sha256", "crop")
        return all(getattr(self, name) == getattr(other, name) for name in names)
