"""Asking a machine: no answer, wrong answer or endless silence of one question ends nothing.

Drivers, sensors and system files of other people's machines raise what nobody foresaw, hang, and tell nonsense. All of
them are asked through an Asker here: what cannot be read is None, and why is kept beside it.
"""

import math
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
"""How long a question may take; /proc, /sys and drivers that work answer in milliseconds."""
SLOW_SECONDS = 30.0
"""The same for what starts programs of its own."""
MOST_UNREAD = 64
"""Reasons that are kept, as many as a fact may be of."""


class Unread(Exception):
    """A question has no answer that can be used; the text is the reason."""


class Asker:
    """Asks one thing after another on a thread of its own, and waits no longer than a limit.

    The thread stays the same, as some bindings demand, until an answer does not come: that one is given up, with its
    thread, and the next question has a new one.
    """

    def __init__(self, seconds: float = PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        self._questions: queue.SimpleQueue[_Question[Any]] | None = None

    def ask(self, question: Callable[[], T], seconds: float | None = None) -> T:
        """What `question` returns.

        Raises:
            Unread: it has raised something, or has not returned in time.
        """
        asked = _Question(question)
        if self._questions is None:
            self._questions = queue.SimpleQueue()
            threading.Thread(target=_answer, args=(self._questions,), name="asker", daemon=True).start()
        self._questions.put(asked)
        limit = self._seconds if seconds is None else seconds
        if not asked.ended.wait(limit):
            self._questions = None
            raise Unread(f"no answer within {limit:g} s")
        if asked.error is not None:
            raise Unread(in_a_line(asked.error)) from asked.error
        return asked.answer  # type: ignore[return-value]  # it has ended without an error


class _Question(Generic[T]):
    def __init__(self, question: Callable[[], T]) -> None:
        self.question, self.ended = question, threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


def _answer(questions: "queue.SimpleQueue[_Question[Any]]") -> None:
    while True:
        asked = questions.get()
        try:
            asked.answer = asked.question()
        except BaseException as error:  # bindings in Rust panic with one that is no Exception
            asked.error = error
        asked.ended.set()


def in_a_line(error: BaseException) -> str:
    """An exception as a reason: its kind and what it says, in one line."""
    words = " ".join(str(error).split())
    if isinstance(error, Unread):
        return words
    return f"{type(error).__name__}: {words}"[:300] if words else type(error).__name__


class Findings:
    """Facts by name as far as they could be read, and why the others could not.

    Attributes:
        facts: None for each that could not.
        unread: "name: reason" for each of those.
    """

    def __init__(self, asker: Asker | None = None) -> None:
        self.facts: dict[str, Any] = {}
        self.unread: list[str] = []
        self._asker = asker or Asker()

    def add(self, name: str, question: Callable[[], Any], seconds: float | None = None) -> None:
        """Ask for one fact."""
        self.facts[name] = None
        try:
            self.facts[name] = fitting(self._asker.ask(question, seconds))
        except Unread as reason:
            self._note(name, reason)

    def add_all(
        self, what: str, names: Iterable[str], question: Callable[[], dict[str, Any]], seconds: float | None = None
    ) -> None:
        """Ask for several facts at once: `names` are None where the answer lacks them, or does not come."""
        answer: dict[str, Any] = {}
        try:
            answer = self._asker.ask(question, seconds)
        except Unread as reason:
            self._note(what, reason)
        for name in [*dict.fromkeys([*names, *answer])]:
            self.facts[name] = None
            try:
                self.facts[name] = fitting(answer.get(name))
            except Unread as reason:
                self._note(name, reason)

    def told(self) -> dict[str, Any]:
        """All facts; `unread` among them where something could not be read."""
        return {**self.facts, "unread": self.unread[:MOST_UNREAD]} if self.unread else dict(self.facts)

    def _note(self, name: str, reason: Exception) -> None:
        self.unread.append(f"{name}: {reason}")


def fitting(value: Any) -> Any:
    """`value` as a fact can be: a number, a text or a row of those.

    Raises:
        Unread: it is nothing of that kind.
    """
    if isinstance(value, list | tuple):
        return [fitting(item) for item in value][:64]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "")[:4000]
    if value is None or isinstance(value, bool):
        return value
    if (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise Unread(f"{str(value)[:100]} is no value for it")


def within(value: float | None, low: float, high: float, unit: str) -> float | None:
    """`value` where it is possible.

    Raises:
        Unread: it is not.
    """
    if value is not None and not low <= value <= high:
        raise Unread(f"the system says {value:g} {unit}, which cannot be")
    return value


# --- Small answers: the first line of a file, the output of a command, a whole number; None where there is none.

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


def command_output(*words: str, env: dict[str, str] | None = None) -> str | None:
    """Output of a short system command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=10, check=True, env=env,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout.strip()


def whole_number(text: str | None) -> int | None:
    """`text` as a number where it is one, of digits alone."""
    return int(text) if text is not None and text.isdecimal() else None


def file_number(path: str | Path) -> int | None:
    """The number that is the first line of a file."""
    return whole_number(first_line(path))
