"""Makes README.md's block, docs/results.md and docs/metrics.md anew: `make readme`, or `python -m aggregate.readme`."""

from collections.abc import Iterator
from pathlib import Path

import click

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import load
from aggregate.render import docs
from shared_spec import files
from shared_spec.errors import UserError
from shared_spec.results.prices import load_prices

ROOT = Path(__file__).resolve().parents[1]


def pages(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every generated file of a clone, and what it is to hold.

    Raises:
        UserError: a committed result is not valid, or README.md has no block.
    """
    loaded = load([root / "results"])
    if loaded.problems:
        raise UserError(str(loaded.problems[0]))
    comparison = compare(loaded.results, [], load_prices())
    readme = root / "README.md"
    yield readme, docs.readme(readme.read_text(encoding="utf-8"), comparison)
    yield root / "docs" / "results.md", docs.results(comparison)
    yield root / "docs" / "metrics.md", docs.metrics()


def outdated(root: Path = ROOT) -> list[tuple[Path, str]]:
    """The files that do not hold what they are to hold."""
    return [(path, text) for path, text in pages(root) if not path.exists() or path.read_text(encoding="utf-8") != text]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if a file is not current.")
def main(check: bool) -> None:
    """Make the generated parts of README.md and docs/ anew."""
    try:
        stale = outdated()
        for path, text in () if check else stale:
            files.write_atomic(path, text.encode())
    except (UserError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path, _ in stale:
        click.echo(f"{path.relative_to(ROOT)}: {'is not current; run `make readme`' if check else 'made anew'}")
    if check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
