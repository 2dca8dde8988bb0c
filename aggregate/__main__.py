"""`python -m aggregate results/*.json`: compare results, on the terminal and in report/."""

import sys

DEPENDENCIES = ("click", "jinja2", "matplotlib", "numpy", "pandas", "pydantic", "rich", "scipy", "shared_spec")

try:
    from pathlib import Path

    import click
    from rich.console import Console
    from rich.text import Text

    from aggregate import __version__, publish, streams
    from aggregate.analysis import aa, merging, pricing, simulation
    from aggregate.analysis.comparison import Comparison
    from aggregate.analysis.comparison import compare as compare_results
    from aggregate.analysis.hardware import hardware_of
    from aggregate.analysis.reading import load
    from aggregate.analysis.result import Result
    from aggregate.render import card, report, screen, verdicts
    from aggregate.render.mine import lines as mine_lines
    from shared_spec.errors import UserError
    from shared_spec.files import write_atomic
    from shared_spec.results.prices import Prices, load_prices
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in DEPENDENCIES:
        raise
    sys.exit(f"{error.name} is not installed in this Python; run `make setup-aggregate`, or `pip install ./aggregate`.")

EXIT_SOME_LEFT_OUT = 1
EXIT_NOTHING_COMPARED = 2
EXIT_WARNED = 3
EXIT_FALSE_VERDICTS = 1
FORMATS = ("table", "markdown", "csv", "json", "html")


class _CompareUnlessTold(click.Group):
    """A group whose first word may be left out: without the name of a command, it is to compare."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        told = args[:1] and (args[0] in self.commands or args[0] == "--version")
        return super().parse_args(ctx, args if told else ["compare", *args])


@click.group(cls=_CompareUnlessTold)
@click.version_option(__version__, prog_name="deit-bench aggregate")
def main() -> None:
    """Compare results, or check one."""


@main.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, type=click.Path())
@click.option(
    "--out", type=click.Path(path_type=Path), default="report", show_default=True, help="Folder of the report."
)
@click.option("--force", is_flag=True, help="Overwrite files in --out that no report wrote.")
@click.option(
    "--baseline",
    default="",
    help="What to compare with, by letter, platform, engine, device or file; else what trains fastest.",
)
@click.option(
    "--prices", type=click.Path(path_type=Path), help="Another price file than shared_spec/results/prices.json."
)
@click.option(
    "--tariff", help="Electricity: part of a tariff's name in the price file, or a price a kWh as '0.35 EUR'."
)
@click.option(
    "--machine-price",
    "machine_prices",
    multiple=True,
    help="What a machine was bought for: 'DEVICE=599 EUR,years=3,hours=2000,residual=100' or a JSON file; repeatable.",
)
@click.option(
    "--exchange-rate", "exchange_rates", multiple=True, help="What a currency is worth: 'EUR/USD=1.12'; repeatable."
)
@click.option("--currency", help="Currency of all costs; else that of the price file.")
@click.option("--title", default=report.TITLE, show_default=True, help="Title of the report.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="What to print.")
@click.option("--details", is_flag=True, help="Print every figure too, not only the answer and the six metrics.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Compare results too that newer ones of the same machine and setting have taken the place of.",
)
@click.option(
    "--mine",
    type=click.Path(path_type=Path),
    help="Print how this one result stands to those of other machines, in place of the comparison.",
)
@click.option("--fail-on-warning", is_flag=True, help=f"Exit status {EXIT_WARNED} if a run or a figure has a warning.")
def compare(
    *,
    files: tuple[str, ...],
    out: Path,
    force: bool,
    baseline: str,
    prices: Path | None,
    tariff: str | None,
    machine_prices: tuple[str, ...],
    exchange_rates: tuple[str, ...],
    currency: str | None,
    title: str,
    form: str,
    details: bool,
    everything: bool,
    mine: Path | None,
    fail_on_warning: bool,
) -> None:
    """Compare results: FILES are result files or folders of them; - is standard input.

    The report is written into --out, whatever is printed. The exit status is 0 if all files were compared, 1 if some
    were not, 2 if there was nothing to compare. `python -m aggregate check FILE` tells whether a result is fit to be
    published.
    """
    errors = streams.errors()
    if not files:
        _say(errors, "Which results? Try `python -m aggregate results/*.json`; `make bench` makes one.")
        sys.exit(EXIT_NOTHING_COMPARED)
    loaded = load(files)
    for problem in loaded.problems:
        _say(errors, str(problem))
    own = None if mine is None else _own(mine, loaded.results, errors)
    if not loaded.results:
        _say(errors, "There is no valid result to compare.")
        sys.exit(EXIT_NOTHING_COMPARED)
    try:
        used = pricing.chosen(load_prices(prices), tariff, machine_prices, exchange_rates, currency)
        pricing.check_devices(used, [hardware_of(result.content) for result in loaded.results])
        comparison = compare_results(loaded.results, loaded.problems, used, baseline, everything=everything)
        plots = report.write(comparison, out, title, force)
    except UserError as error:
        _say(errors, str(error))
        sys.exit(EXIT_NOTHING_COMPARED)
    if own is not None:
        _show_mine(own, loaded.results, used)
    elif form == "table":
        _show(comparison, details=details)
    else:
        click.echo(report.as_text(comparison, plots, form, title), nl=False)
    _say(errors, f"The report is in {out}: index.html, comparison.md, comparison.csv and plots/.")
    sys.exit(_status(comparison, errors, fail_on_warning))


def _status(comparison: Comparison, errors: Console, fail_on_warning: bool) -> int:
    """The exit status, its reason said."""
    warned = comparison.warnings
    if fail_on_warning and warned:
        _say(errors, f"There are warnings: {'; '.join(warned[:10])}{' ...' if len(warned) > 10 else ''}.")
    if comparison.problems:
        left_out = len({problem.file for problem in comparison.problems})
        be = "is" if left_out == 1 else "are"
        _say(errors, f"{left_out} of the files given {be} not compared, for the reasons above.")
        return EXIT_SOME_LEFT_OUT
    return EXIT_WARNED if fail_on_warning and warned else 0


@main.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Tell whether a result is fit to be published; - is standard input.

    It is if it is valid, of the standard workload, from a clean commit and proved to compute the specified model, and
    holds nothing private. The exit status is 0 if it is, else 1.
    """
    console = streams.console(soft_wrap=True)
    findings = publish.check(file)
    for finding in findings:
        _say(console, f"{finding.sign}  {finding.text}")
    fit = not any(finding.prevents for finding in findings)
    _say(console, f"{'Fit' if fit else 'Not fit'} to be published.")
    sys.exit(0 if fit else 1)


@main.command("card", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out", type=click.Path(path_type=Path), default="card.png", show_default=True, help="Where the picture goes."
)
def share_card(*, files: tuple[str, ...], out: Path) -> None:
    """Draw a picture to share: three bars, machine names, one sentence; 1200 x 630 pixels.

    The exit status is 0 if all FILES were used, 1 if some were not, 2 if there was nothing to draw.
    """
    errors = streams.errors()
    loaded = load(files)
    for problem in loaded.problems:
        _say(errors, str(problem))
    try:
        if not loaded.results:
            raise UserError("There is no valid result to draw a card of.")
        picture = card.png(compare_results(loaded.results, loaded.problems, load_prices(None)))
        try:
            write_atomic(out, picture)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written to ({error.strerror}); give another file.") from error
    except UserError as error:
        _say(errors, str(error))
        sys.exit(EXIT_NOTHING_COMPARED)
    _say(errors, f"The card is in {out}.")
    sys.exit(EXIT_SOME_LEFT_OUT if loaded.problems else 0)


@main.command("aa", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, type=click.Path())
@click.option("--simulate", type=click.IntRange(min=100), metavar="N", help="Also judge N drawn comparisons a case.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the drawn comparisons.")
@click.option(
    "--spread",
    type=click.FloatRange(0.1, 10),
    default=1,
    show_default=True,
    metavar="X",
    help="Draw with X times the spreads known beforehand: how wrong these may be.",
)
def same_against_same(*, files: tuple[str, ...], simulate: int | None, seed: int, spread: float) -> None:
    """Set what is the same against itself: every verdict is a false one.

    All pairs of processes, and of runs, of the same framework and settings on the same kind of machine, from FILES
    (result files or folders of them). With --simulate also comparisons drawn with the spreads known beforehand: how
    often the interval holds the truth, how often there is a false verdict, how often a true ratio is found. The exit
    status is 0 if at most 5 % of the verdicts are false, 1 if more are or a file was left out, 2 if there was nothing to
    compare.
    """
    errors = streams.errors()
    loaded = load(files)
    for problem in loaded.problems:
        _say(errors, str(problem))
    if not loaded.results and not simulate:
        _say(errors, "There is no valid result to compare. Try `python -m aggregate aa results/*.json`.")
        sys.exit(EXIT_NOTHING_COMPARED)
    sound = True
    if loaded.results:
        runs = merging.runs(loaded.results, load_prices(None))
        rows = aa.test(runs)
        click.echo(f"{verdicts.of_test(rows)}\n\n{verdicts.of_spreads(aa.spreads(runs))}")
        sound = aa.passes(rows)
    if simulate:
        drawn = list(simulation.simulate(simulate, seed, spread))
        click.echo(f"\n{verdicts.of_simulation(drawn)}")
        sound = simulation.passes(drawn, simulate) and sound
    if not sound:
        _say(
            errors, "More than 5 % of the verdicts are false, or the interval holds the truth too seldom or too often."
        )
        sys.exit(EXIT_FALSE_VERDICTS)
    if loaded.problems:
        sys.exit(EXIT_SOME_LEFT_OUT)


def _say(console: Console, text: str) -> None:
    console.print(Text(text))


def _own(path: Path, results: list[Result], errors: Console) -> Result | None:
    """The result of --mine, which is added to `results` if it is not one of them; None, and why, if it is none."""
    read = load([path])
    for own in read.results:
        results += [] if own.content.run_id in {result.content.run_id for result in results} else [own]
        return own
    for problem in read.problems:
        _say(errors, f"--mine: {problem}")
    return None


def _show_mine(own: Result, results: list[Result], prices: Prices) -> None:
    """Print how one result stands to those of other machines; other results of the very same thing are left aside."""
    others = [result for result in results if merging.same_thing(result) != merging.same_thing(own)]
    comparison = compare_results([own, *others], [], prices)
    (run,) = (run for run in comparison.runs if run.content.run_id == own.content.run_id)
    screen.say(streams.console(), mine_lines(comparison, run))


def _show(comparison: Comparison, *, details: bool) -> None:
    """Print the comparison; what is piped on is as wide as it needs to be and never cut."""
    screen.show(comparison, streams.console(), details=details)


if __name__ == "__main__":
    streams.guarded(main, "python -m aggregate")
