"""Where the videos of EPIC-KITCHENS lie: as files or as folders of frames, in any of its own layouts."""

from collections.abc import Iterable
from pathlib import Path

from tf_records.frame_folder import holds_frames

# Below the input folder: what people make by hand, and what the data set's download scripts make.
_ABOVE_PARTICIPANT = ("", "videos", "videos/train", "frames", "rgb", "rgb/train", "frames_rgb_flow/rgb/train")
_BELOW_PARTICIPANT = ("", "videos", "rgb_frames")
_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


def find_videos(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Name (P01_01) → its file or folder of frames, for those that are there; files come first."""
    listed: dict[str, list[Path]] = {}
    found = {}
    for name in names:
        participant = name.split("_")[0]
        if participant not in listed:
            listed[participant] = _list_places(root, participant)
        own = [path for path in listed[participant] if path.name.split(".")[0] == name]
        files = [path for path in own if path.suffix.lower() in _SUFFIXES and path.is_file()]
        folders = (path for path in own if path.name == name and holds_frames(path))
        path = next(iter(files), None) or next(folders, None)
        if path is not None:
            found[name] = path
    return found


def _list_places(root: Path, participant: str) -> list[Path]:
    """All that lies where a participant's videos may lie, in a fixed order."""
    places = [
        root / above / participant / below for above in _ABOVE_PARTICIPANT for below in _BELOW_PARTICIPANT
    ]
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
