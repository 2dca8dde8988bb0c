"""The system's small answers: the first line of a file, the output of a command, a whole number; None where there is none."""

import subprocess
from pathlib import Path


def first_line(path: str | Path) -> str | None:
    """The first line of a file, without blanks around it."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def command_output(*words: str) -> str | None:
    """Output of a short system command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def whole_number(text: str | None) -> int | None:
    """`text` as a number where it is one, of digits alone."""
    return int(text) if text is not None and text.isdecimal() else None
