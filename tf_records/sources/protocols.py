"""How each data set's protocol cuts clips: the defaults of `build-records`, in one table.

JHMDB: pairs of 8-frame clips, tau = 15 frames (§4.2). EPIC-KITCHENS: 32-frame clips, tau = 1 s (§4.3).
THUMOS14: one-second clips of 16 frames that end one second before the action (§4.4).
"""

import dataclasses

from tf_records.errors import RecordError
from tf_records.schema import ClipSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """`fps` is the rate of the clock that frames are taken on, None for the video's own."""

    clip: ClipSpec = dataclasses.field(default_factory=ClipSpec)
    fps: float | None = None

    @property
    def lead_s(self) -> float:
        """Seconds from the first frame that A observes to the start of the action.

        Raises:
            RecordError: the clock's rate depends on the video.
        """
        if self.fps is None:
            raise RecordError("`fps` should be a number here, so that a clip has one length. Received: None.")
        return self.clip.offset_at(self.fps) / self.fps


PROTOCOLS = {
    "jhmdb": Protocol(),
    "csv": Protocol(),
    "synthetic": Protocol(),
    "epic55": Protocol(clip=ClipSpec(clip_frames=32, anticipation_s=1.0)),
    "thumos14": Protocol(clip=ClipSpec(clip_frames=16, anticipation_s=1.0), fps=16.0),
}


def resolve_protocol(
    source: str,
    *,
    clip_frames: int | None = None,
    offset_frames: int | None = None,
    anticipation_s: float | None = None,
    fps: float | None = None,
) -> Protocol:
    """The protocol of `source` with what was given in place of its own.

    Either distance replaces the protocol's distance, of whichever kind that is.

    Raises:
        RecordError: a value out of range, or both distances.
    """
    own = PROTOCOLS[source]
    if offset_frames is None and anticipation_s is None:
        offset_frames, anticipation_s = own.clip.offset_frames, own.clip.anticipation_s
    clip = ClipSpec(
        clip_frames=own.clip.clip_frames if clip_frames is None else clip_frames,
        offset_frames=offset_frames,
        anticipation_s=anticipation_s,
    )
    return Protocol(clip=clip, fps=own.fps if fps is None else fps)
