"""What a person sees of a training: on a terminal of any usual width, and in a pipe."""

import io
import re
import types

import pytest
from kdant_cli.progress import TrainingProgress
from rich.console import Console

LOGS = {
    "loss": 12.3456,
    "classification_loss": 11.2345,
    "feature_loss": 0.1111,
    "accuracy": 1.0,
    "clips_per_second": 1234.5,
    "data_wait_share": 0.01,
    "gradient_norm": 12.0,
}
VALIDATED = {"validation_loss": 1.25, "validation_accuracy": 0.5, "validation_mean_class_accuracy": 0.5}


def train(
    console, *, epochs=2, steps=100, logs=LOGS, name="student (unidirectional)", on_last_epoch=lambda: None
):
    """Drives the callback as the loop does."""
    progress = TrainingProgress(epochs, name, console)
    progress.set_params({"epochs": epochs, "steps": steps})
    progress.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=0.001)))
    with progress:
        progress.on_train_begin()
        for epoch in range(epochs):
            progress.on_epoch_begin(epoch)
            if epoch + 1 == epochs:
                on_last_epoch()
            for batch in range(steps):
                progress.on_train_batch_end(batch, logs)
            progress.bars.refresh()
            progress.on_epoch_end(epoch, {**logs, **VALIDATED})
        progress.on_train_end()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_wraps_on_a_terminal(width):
    screen = io.StringIO()
    train(Console(file=screen, force_terminal=True, width=width, height=30, color_system=None), epochs=80)
    # What moves the cursor ends a frame's line as well.
    lines = re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", screen.getvalue())
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in ("student (unidirectional)", "epoch 80/80", "step 100/100", "left", "clips/s", "waiting"):
        assert part in text
    if width >= 80:
        for part in ("loss 12.346 (Lc 11.235, Ld 0.1111), top-1 100.0 %, learning rate 0.001", "GB"):
            assert part in text
        assert "validation top-1 50.0 %, loss 1.250" in text


def test_frames_do_not_shrink_and_an_error_gives_the_terminal_back():
    """A frame that shrinks and grows makes the terminal jump; one without its cursor is broken."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=30, color_system=None)
    with pytest.raises(ZeroDivisionError):
        train(console, epochs=3, on_last_epoch=lambda: 1 / 0)
    # A frame moves the cursor up by as many lines as the one before had; the last move erases it.
    heights = [
        len(moves) // len("\x1b[1A\x1b[2K")
        for moves in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", screen.getvalue())
    ]
    assert heights[:-1] == sorted(heights[:-1])
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h") == 1


def test_a_pipe_gets_a_line_an_epoch():
    pipe = io.StringIO()
    train(Console(file=pipe, force_terminal=False, width=80), epochs=2)
    first, second = pipe.getvalue().splitlines()
    assert first.startswith("student (unidirectional): epoch 1/2, loss 12.346 (Lc 11.235, Ld 0.1111), ")
    assert "1 % waiting for data" in first
    assert "validation top-1 50.0 %" in first
    assert second.endswith("0:00:00 left")


def test_a_teacher_has_no_feature_loss_and_unvalidated_epochs_say_nothing_of_it():
    pipe = io.StringIO()
    train(Console(file=pipe, force_terminal=False), epochs=1, logs={**LOGS, "feature_loss": 0.0})
    assert "(Lc 11.235), top-1" in pipe.getvalue()


def test_what_a_feature_loss_still_sees_has_a_line_of_its_own():
    logs = {**LOGS, "pooling_entropy": 0.9876, "map_variation": 0.4321}
    pipe, screen = io.StringIO(), io.StringIO()
    train(Console(file=pipe, force_terminal=False, width=80), logs=logs)
    assert "learning rate 0.001, pooling entropy 0.988, map variation 0.432, " in pipe.getvalue()
    train(
        Console(file=screen, force_terminal=True, width=80, height=30, color_system=None), steps=2, logs=logs
    )
    assert re.search(r"^pooling entropy 0\.988, map variation 0\.432\s*$", screen.getvalue(), re.MULTILINE)
    train(Console(file=pipe, force_terminal=False, width=80), logs={**LOGS, "map_variation": 0.4321})
    assert "learning rate 0.001, map variation 0.432, " in pipe.getvalue()
