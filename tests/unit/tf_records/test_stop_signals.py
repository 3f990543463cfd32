"""The first signal ends a training after its step, the second at once."""

import signal

import pytest

from tf_records.files import StopSignals


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_signal_is_kept_and_said_and_the_second_one_interrupts(number, word):
    lines: list[str] = []
    with StopSignals(lines.append) as stop:
        assert stop.received is None
        signal.raise_signal(number)
        assert stop.received == word
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    (line,) = lines
    assert line.startswith(f"{word}: finishing this step")


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="inside"), StopSignals():
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
