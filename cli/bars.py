"""Progress on stderr of things that are counted: rich bars on a terminal, few lines or none when piped."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# Of a build, when piped.
_LINES = 20


def make_progress(console: Console | None = None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console or Console(stderr=True),
        transient=True,
    )


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class CountProgress:
    """A bar for a known number of things; use as a context manager. Silent when piped."""

    def __init__(self, what: str, total: int | None) -> None:
        self.console = Console(stderr=True)
        self.progress = make_progress(self.console)
        self.progress.disable = not self.console.is_terminal
        self.task = self.progress.add_task(what, total=total, note="")

    def __enter__(self) -> Any:
        self.progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.progress.stop()

    def advance(self, count: int) -> None:
        self.progress.advance(self.task, count)


class BuildProgress(CountProgress):
    """Samples done, videos a second, time left, samples skipped; some twenty lines when piped.

    Args:
        samples: of the whole build.
    """

    def __init__(self, samples: int) -> None:
        super().__init__("building records", samples)
        self.samples = samples
        self.began_s = time.monotonic()
        self.done = self.videos = self.skipped = self.frames_decoded = 0
        self.features_task: TaskID | None = None

    def add_shard(self, result: Any) -> None:
        """Takes a `ShardResult`."""
        before = self.done
        self.done += result.shard.records + len(result.skipped)
        self.videos += result.videos
        self.skipped += len(result.skipped)
        self.frames_decoded += result.frames_decoded
        elapsed_s = max(time.monotonic() - self.began_s, 1e-3)
        note = f"{self.videos / elapsed_s:.1f} videos/s, {self.skipped} skipped"
        self.progress.update(self.task, completed=self.done, note=note)
        if (
            not self.console.is_terminal
            and self.done * _LINES // self.samples > before * _LINES // self.samples
        ):
            left_s = elapsed_s / self.done * (self.samples - self.done)
            line = f"building records: {self.done}/{self.samples} samples, {note}, {clock(left_s)} left"
            self.console.out(line, highlight=False)

    def add_features(self, records: int) -> None:
        """Takes a number of records whose features were made, after the building."""
        if self.features_task is None:
            self.features_task = self.progress.add_task("extracting features", total=self.samples, note="")
        self.progress.advance(self.features_task, records)
