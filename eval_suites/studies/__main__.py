"""`python -m eval_suites.studies evotok_small --images FOLDER --out FOLDER`: runs what is missing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from eval_suites.studies.evotok_small import Study
from eval_suites.studies.evotok_small_rates import rate_rows, rate_table
from eval_suites.studies.evotok_small_results import write_results
from eval_suites.studies.grid import run_grid
from mmzoo.errors import EXIT_OK, EXIT_USER_INPUT, CommandParser, InputError


def main(argv: list[str]) -> int:
    """Runs a study."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the training under way ends with this process
    parser = CommandParser(prog="python -m eval_suites.studies", description="Run a study; what is done is kept.")
    parser.add_argument("study", choices=["evotok_small"])
    parser.add_argument("--images", type=Path, required=True, help="folder of the labelled photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="folder of the grid (runs/results)")
    parser.add_argument("--report", type=Path, help="write the results to this name, e.g. docs/results/evotok_small")
    try:
        given = parser.parse_args(argv)
        if not given.images.is_dir():
            raise InputError(f"there is no folder {given.images}. Give the folder that holds the photographs.")
        study = Study(given.images.resolve())
        places = run_grid(given.out / given.study, study.steps())
        if given.report:
            measured, rates = (
                [places[f"fold{number}/{part}"] for number in range(study.folds)] for part in ("measured", "rates")
            )
            table = rate_table(rate_rows([folder / "evaluation" for folder in rates]))
            write_results(measured, given.report, table)
    except InputError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return EXIT_USER_INPUT
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
