"""The folder that a report is written into: what is ours there is replaced, what is not is left alone.

A marker file lists what this program wrote and its SHA-256. Whatever else lies there, and whatever somebody has changed
since, belongs to somebody else.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from shared_spec import files
from shared_spec.errors import UserError

MARKER = ".deit-bench-report.json"
ABOUT = "Written by deit-bench's aggregate, which replaces or removes the files listed here and no others."
FORMAT = 1
NAMED = 5
"""Files that a sentence names; the rest are counted."""

Hashes = dict[str, list[str]]
"""SHA-256 by name within the folder: of what was written there, and while a report is being written also of what will be."""


def write(out: Path, content: Mapping[str, bytes], force: bool = False) -> None:
    """Write files into `out`, each whole or not at all, and remove those of an earlier report that are none of them.

    Args:
        out: the folder; it is made where there is none.
        content: of the files, by name within it ("plots/cost.png").
        force: take the names that are needed, whoever has them.

    Raises:
        UserError: a file is in the way that no report wrote or that was changed since, or `out` cannot be written to.
    """
    try:
        earlier = _earlier(out)
        if not force and (taken := sorted(name for name in content if _is_foreign(out / name, earlier.get(name, [])))):
            raise UserError(_in_the_way(out, taken))
        wanted = {name: [_hash(data)] for name, data in content.items()}
        # Whenever this is ended, the marker knows all that it may have written.
        _mark(out, {name: [*earlier.get(name, []), *wanted.get(name, [])] for name in {**earlier, **wanted}})
        for name, data in content.items():
            files.write_atomic(out / name, data)
        for name in earlier.keys() - wanted.keys():
            if not _is_foreign(out / name, earlier[name]):
                (out / name).unlink(missing_ok=True)
        _mark(out, wanted)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); give another folder.") from error


def _is_foreign(path: Path, hashes: Iterable[str]) -> bool:
    """Whether something is there that no report wrote."""
    if path.is_symlink() or path.exists():
        return path.is_symlink() or not path.is_file() or _hash(path.read_bytes()) not in hashes
    return False


def _in_the_way(out: Path, taken: list[str]) -> str:
    listed = ", ".join(taken[:NAMED]) + (f" and {len(taken) - NAMED} more" if len(taken) > NAMED else "")
    which = "that file is" if len(taken) == 1 else "those files are"
    return (
        f"--out {out}: {listed} would be overwritten, and no report wrote what is there now; "
        f"give another folder, or --force if {which} not needed."
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _mark(out: Path, hashes: Hashes) -> None:
    listed = {name: hashes[name] for name in sorted(hashes)}
    files.write(out / MARKER, {"about": ABOUT, "format": FORMAT, "files": listed})


def _earlier(out: Path) -> Hashes:
    """What earlier reports wrote into `out`."""
    if not (out / MARKER).exists():
        return _unmarked(out)
    try:
        content = files.read(out / MARKER)
        listed = content["files"] if content["format"] == FORMAT else {}
        return {
            name: [text for text in hashes if isinstance(text, str)]
            for name, hashes in listed.items()
            if isinstance(hashes, list) and _is_inside(name)
        }
    except (UserError, KeyError, TypeError, AttributeError):
        return {}  # a marker that is not ours proves nothing


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


# --- Reports of 0.1.0 had no marker.

FIRST_COLUMNS = b"run,runs,file,file_sha256,run_id,created,platform,"
"""How their comparison.csv begins."""
SHOWN = re.compile(rb"\]\((plots/[a-z]+(?:-[0-9a-f]{12})?(?:-bf16)?)\.png\)")
"""The plots that their comparison.md shows; each stood there as an SVG too."""


def _unmarked(out: Path) -> Hashes:
    """The files of a report without a marker, recognised by its table and by what its text shows."""
    page, text, table = (out / name for name in ("index.html", "comparison.md", "comparison.csv"))
    if not all(path.is_file() for path in (page, text, table)):
        return {}
    written = text.read_bytes()
    if not table.read_bytes().startswith(FIRST_COLUMNS) or b"How each figure is found" not in page.read_bytes():
        return {}
    plots = [
        f"{name.decode()}.{kind}" for name in dict.fromkeys(SHOWN.findall(written)) for kind in ("png", "svg", "pdf")
    ]
    names = [path.name for path in (page, text, table)] + [name for name in plots if (out / name).is_file()]
    return {name: [_hash((out / name).read_bytes())] for name in names}
