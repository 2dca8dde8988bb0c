"""The JSON schemas that are made from the types: `python -m shared_spec.dev.schemas` writes them anew."""

from pathlib import Path

from pydantic import BaseModel

from shared_spec import schema
from shared_spec.results.format import Result
from shared_spec.results.prices import Prices
from shared_spec.workload.spec import Spec

PACKAGE = Path(__file__).parents[1]
SCHEMAS: dict[Path, type[BaseModel]] = {
    PACKAGE / "results" / "results.schema.json": Result,
    PACKAGE / "results" / "prices.schema.json": Prices,
    PACKAGE / "workload" / "spec.schema.json": Spec,
}


def main() -> None:
    """Write every schema to where it belongs."""
    for path, kind in SCHEMAS.items():
        path.write_text(schema.json_schema(kind), encoding="utf-8")


if __name__ == "__main__":
    main()
