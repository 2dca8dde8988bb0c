"""The system's small answers: a line of a file, the output of a command, a number; None where there is none."""

import subprocess
from pathlib import Path

ROOT = Path("/")
"""What absolute paths of the system begin at; tests put an invented machine here."""


def rooted(path: str | Path) -> Path:
    """Where an absolute path of the system lies."""
    return ROOT / str(path).lstrip("/")


def first_line(path: str | Path) -> str | None:
    """The first line of a file, without blanks around it."""
    try:
        return rooted(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def command_output(*words: str) -> str | None:
    """Output of a short system command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def whole_number(text: str | None) -> int | None:
    """`text` as a number where it is one, of digits alone."""
    return int(text) if text is not None and text.isdecimal() else None


def file_number(path: str | Path) -> int | None:
    """The number that is the first line of a file."""
    return whole_number(first_line(path))
