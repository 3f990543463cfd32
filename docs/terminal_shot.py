"""Pictures of a terminal: a command is run in one, and what stands on the screen becomes an SVG."""

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

_ROWS = 60
_THEME = TerminalTheme(
    background=(24, 28, 36),
    foreground=(222, 226, 232),
    normal=[
        *((24, 28, 36), (232, 104, 104), (122, 196, 120), (222, 184, 92)),
        *((110, 168, 238), (214, 132, 208), (96, 200, 208), (222, 226, 232)),
    ],
    bright=[
        *((128, 138, 152), (248, 132, 132), (150, 220, 146), (240, 208, 120)),
        *((140, 190, 250), (232, 160, 226), (130, 222, 228), (255, 255, 255)),
    ],
)
# What rich's live displays write besides text: sequences of control, and lines.
_TOKENS = re.compile(r"\x1b\[\??(\d*)([A-HJKhl])|(\r)|(\n)|((?:\x1b\[[\d;]*m|[^\x1b\r\n])+)")
# A font of the system's, since rich's own would be fetched.
_FONT = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace'


def terminal_shot(command: list[str], path: Path, folder: Path, width: int, until: str = "") -> Path:
    """Runs `command` in `folder` in a terminal `width` columns wide, and draws its screen.

    Args:
        until: a regular expression; once the screen has it, the command is stopped and the screen drawn.

    Raises:
        RuntimeError: the command failed, or ended before the screen had `until`.
    """
    screen = Screen()
    ended = _run(command, folder, width, screen, until)
    if not re.search(until, screen.plain) if until else ended != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {ended}:\n{screen.plain}")
    shown = ["kdant", *command[1:]]
    console = Console(record=True, width=width, file=open(os.devnull, "w"))  # noqa: SIM115  as long as it
    console.print(Text.assemble(("$ ", "bright_black"), (" ".join(shown), "bold")))
    console.print(Text.from_ansi(screen.text))
    svg = console.export_svg(title="", theme=_THEME, unique_id="shot")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", _FONT).replace("Fira Code", "monospace")
    path.write_text(_without_margin(svg), encoding="utf-8")
    return path


def _without_margin(svg: str) -> str:
    """Blanks at the ends of lines dropped, so that the file is a text file like any other."""
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


class Screen:
    """What a terminal shows, of what rich's live displays write: lines that are appended to or rewritten."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0
        self.returned = False

    @property
    def text(self) -> str:
        """The lines with their colours, those at the end that are empty left out."""
        return "\n".join(self.lines).rstrip()

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[\d;]*m", "", self.text)

    def write(self, text: str) -> None:
        for count, control, carriage_return, line_feed, written in _TOKENS.findall(text):
            if control == "A":
                self.row = max(0, self.row - int(count or 1))
            elif control == "K":
                self.lines[self.row] = ""
            elif carriage_return:
                self.returned = True
            elif line_feed:
                self._feed()
            elif written:
                self._append(written)

    def _feed(self) -> None:
        self.row, self.returned = self.row + 1, False
        if self.row == len(self.lines):
            self.lines.append("")

    def _append(self, written: str) -> None:
        self.lines[self.row] = written if self.returned else self.lines[self.row] + written
        self.returned = False


def _run(command: list[str], folder: Path, width: int, screen: Screen, until: str) -> int:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(width)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    for text in _read(ours):
        screen.write(text)
        if until and re.search(until, screen.plain):
            os.killpg(process.pid, signal.SIGKILL)
            break
    os.close(ours)
    return process.wait()


def _read(descriptor: int) -> Iterator[str]:
    """What arrives, in whole characters and whole sequences of control, until the other end closes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    waiting = ""
    while True:
        try:
            waiting += decoder.decode(os.read(descriptor, 65536))
        except OSError:  # Linux' way to say that nobody holds the other end any more.
            break
        whole = re.sub(r"\x1b(\[[\d;?]*)?$", "", waiting)
        waiting = waiting[len(whole) :]
        yield whole
    yield waiting
