"""Makes the pictures of these pages anew, from the videos that `kdant demo` renders:

    .venv/bin/python docs/make_pictures.py                    # after a demo of its own
    .venv/bin/python docs/make_pictures.py --demo kdant-demo  # of what a demo left
    .venv/bin/python docs/make_pictures.py terminal overlay   # some of them

No picture holds frames of a data set. Figures of studies (drift.png, where_did_it_go.png) are those studies'
own: docs/results says which command draws them. What needs a browser wants Chromium.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
KDANT = str(Path(sys.executable).with_name("kdant"))
STUDENTS = ("student-none", "student-direct", "student-bidirectional")
STUDENT = STUDENTS[-1]
# A test video.
VIDEO = "videos/00252.mp4"
# One whose action stays clear of what is drawn over the lower third.
OVERLAID = "videos/00302.mp4"
# Of the terminal; as many in all shots, so that their letters have one size.
COLUMNS = 96
# Colours of a picture that is stored with a palette.
_PALETTE = 128


def kdant(demo: Path, *words: str) -> None:
    subprocess.run(
        [KDANT, *words], cwd=demo, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def draw_two_clips_of_the_demo(demo: Path) -> None:
    from two_clips import draw_two_clips

    draw_two_clips(demo, "fall", PICTURES / "two-clips.svg")


def draw_terminals(demo: Path) -> None:
    from terminal_shot import terminal_shot

    shots = {
        "help": ["--help"],
        "inspect": ["inspect", "records", "--verify"],
        "evaluate": ["evaluate", STUDENT, "--records", "records", "--per-class"],
        "predict": ["predict", VIDEO, "--model", STUDENT, "--stride-s", "0.2"],
    }
    for name, words in shots.items():
        terminal_shot([KDANT, *words], PICTURES / f"terminal-{name}.svg", demo, COLUMNS)
    words = ["distill", "--records", "records", "--teacher", "teacher", "--out", "student"]
    until = r"epoch 3/9[^\n]*\n *step +([6-9]|1\d)/[^\n]*\n[^\n]*\n[^\n]*waiting for data, [^\n]*B\b"
    path = PICTURES / "terminal-training.svg"
    terminal_shot([KDANT, *words, "--preset", "demo-small"], path, demo, COLUMNS, until)
    shutil.rmtree(demo / "student")


def draw_contact_sheet(demo: Path) -> None:
    sheet = demo / "contact_sheet.png"
    kdant(demo, "inspect", "records", "--contact-sheet", sheet.name, "--samples", "4")
    store(sheet, "contact-sheet")


def draw_earliness(demo: Path) -> None:
    """Accuracy against the anticipation time, on records that reach further back."""
    for name in ("records-earlier", "earliness"):
        shutil.rmtree(demo / name, ignore_errors=True)
    clips = ("--clip-frames", "8", "--offset-frames", "16", "--longest-anticipation-s", "0.8")
    source = ("--source", "synthetic", "--input", "videos", "--short-side", "64")
    kdant(demo, "build-records", *source, *clips, "--out", "records-earlier")
    for run in STUDENTS:
        kdant(demo, "evaluate", run, "--records", "records-earlier", "--tau", "0,0.2,0.4,0.6,0.8", "--insist")
    records = ("--records", "records-earlier", "--pictures", "earliness")
    kdant(demo, "visualize", *STUDENTS, *records, "--out", "earliness")
    store(demo / "earliness" / "accuracy_by_tau.png", "earliness")


def draw_overlay(demo: Path) -> None:
    """A predicted video as a picture that moves, at half the speed."""
    from PIL import Image

    large, drawn = demo / "large.mp4", demo / "overlay.mp4"
    enlarge(demo / OVERLAID, large)
    kdant(demo, "predict", large.name, "--model", STUDENT, "--stride-s", "0.1", "--overlay", drawn.name)
    with av.open(str(drawn)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    size = (frames[0].width // 2, frames[0].height // 2)
    frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    durations = [100] * (len(frames) - 1) + [1500]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    frames[0].save(PICTURES / "overlay.webp", quality=75, method=6, **options)
    large.unlink()
    drawn.unlink()


def enlarge(video: Path, large: Path) -> None:
    """The same video with more pixels, since what is drawn over 64 of them hides all of them."""
    with av.open(str(video)) as source, av.open(str(large), "w") as target:
        rate = source.streams.video[0].average_rate
        stream = target.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 1056, 768, "yuv420p"
        for frame in source.decode(video=0):
            larger = frame.reformat(stream.width, stream.height, interpolation="BICUBIC")
            target.mux(stream.encode(larger))
        target.mux(stream.encode())


def draw_report(demo: Path) -> None:
    """The top of a report and its clips, as a browser shows them."""
    from browser import Browser

    kdant(demo, "report", "teacher", *STUDENTS, "--records", "records", "--out", "report.html", "--overwrite")
    shot = demo / "report.png"
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.show((demo / "report.html").as_uri(), 1100, 1500)
        shot.write_bytes(browser.screenshot())
    store(shot, "report")


def store(picture: Path, name: str) -> None:
    """Copies a picture with a palette, which takes a third of the bytes."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(_PALETTE, dither=Image.Dither.NONE)
        small.save(PICTURES / f"{name}.png", optimize=True)


DRAWN: dict[str, Callable[[Path], None]] = {
    "two-clips": draw_two_clips_of_the_demo,
    "terminal": draw_terminals,
    "contact-sheet": draw_contact_sheet,
    "earliness": draw_earliness,
    "overlay": draw_overlay,
    "report": draw_report,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=f"of {', '.join(DRAWN)}; default: all")
    parser.add_argument("--demo", type=Path, help="folder that a demo left; default: a new demo")
    options = parser.parse_args()
    if unknown := set(options.pictures) - set(DRAWN):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        demo = options.demo
        if demo is None:
            demo = Path(scratch) / "kdant-demo"
            subprocess.run([KDANT, "demo", "--out", str(demo)], check=True)
        for name in options.pictures or DRAWN:
            print(f"{name} …", flush=True)
            DRAWN[name](demo.resolve())


if __name__ == "__main__":
    main()
