"""`python -m eval_suites.studies STUDY --images|--data FOLDER --out FOLDER`: runs what is missing of a study."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from pathlib import Path

from eval_suites.studies import crossearth_sar_small, evotok_small
from eval_suites.studies.grid import run_grid
from mmzoo.errors import EXIT_OK, EXIT_USER_INPUT, CommandParser, InputError


def main(argv: list[str]) -> int:
    """Runs a study."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the training under way ends with this process
    parser = CommandParser(prog="python -m eval_suites.studies", description="Run a study; what is done is kept.")
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--images", type=Path, help="evotok_small: folder of the labelled photographs")
    parser.add_argument("--data", type=Path, help="crossearth_sar_small: folder of the radar pictures with their masks")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="folder of the grid (runs/results)")
    parser.add_argument("--report", type=Path, help="write the results to this name, e.g. docs/results/evotok_small")
    try:
        given = parser.parse_args(argv)
        STUDIES[given.study](given)
    except InputError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return EXIT_USER_INPUT
    return EXIT_OK


def _evotok_small(given: Namespace) -> None:
    from eval_suites.studies.evotok_small_rates import rate_rows, rate_table
    from eval_suites.studies.evotok_small_results import write_results

    study = evotok_small.Study(_folder(given.images, "--images", "the photographs"))
    places = run_grid(given.out / given.study, study.steps())
    if given.report:
        measured, rates = ([places[f"fold{n}/{part}"] for n in range(study.folds)] for part in ("measured", "rates"))
        write_results(measured, given.report, rate_table(rate_rows([folder / "evaluation" for folder in rates])))


def _crossearth_sar_small(given: Namespace) -> None:
    data = _folder(given.data, "--data", "the radar pictures")
    if not (data / "annotations.jsonl").is_file():
        raise InputError(f"{data} holds no annotations.jsonl. Give the folder that holds the list of radar pictures.")
    study = crossearth_sar_small.Study(data)
    run_grid(given.out / given.study, study.grid())
    if given.report:
        from eval_suites.studies.crossearth_sar_small_results import write_results

        write_results(given.out / given.study, study, given.report)


def _folder(given: Path | None, flag: str, what: str) -> Path:
    if given is None:
        raise InputError(f"this study needs {flag} FOLDER, the folder that holds {what}.")
    if not given.is_dir():
        raise InputError(f"there is no folder {given}. Give the folder that holds {what}.")
    return given.resolve()


STUDIES = {"evotok_small": _evotok_small, "crossearth_sar_small": _crossearth_sar_small}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
