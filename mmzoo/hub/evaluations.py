"""Evaluations that go up with a model: in the card's metadata, in `.eval_results/`, and as records to be checked.

mmzoo knows no suite: the record is read by EXPORTER, which is reached by its dotted path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml

from mmzoo.errors import InputError
from mmzoo.families import load_object
from mmzoo.hub.weights import weight_files

EXPORTER = "eval_suites.exporters.hub_eval_results:export"


@dataclass(frozen=True)
class Target:
    """Where it goes. url: of the files there, without a slash at the end. dataset: the benchmark's Hub id, if any."""

    repository: str
    url: str
    dataset: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """What one record becomes on the Hub.

    model_files: name -> sha256 of what was measured. results: for the card's model-index. entries: for
    `.eval_results/<suite>.yaml`; empty without a benchmark. files: path in the repository -> local file. section: lines
    of Markdown for the card.
    """

    record: Path
    suite: str
    model_files: Mapping[str, str]
    results: Sequence[EvalResult]
    entries: Sequence[EvalResultEntry]
    files: Mapping[str, Path]
    section: Sequence[str]


def read_evaluations(
    records: Sequence[Path], target: Target, folder: Path, files: Mapping[str, str]
) -> list[Evaluation]:
    """The evaluations of the model in `folder`, whose `files` have these sha256.

    InputError: a damaged record, one of other weights, or the same number twice.
    """
    found: list[Evaluation] = []
    for record in records:
        evaluation: Evaluation = load_object(EXPORTER)(record, target)
        _refuse_other_weights(evaluation, folder, files)
        _refuse_twice(evaluation, found)
        found.append(evaluation)
    return found


def _refuse_other_weights(evaluation: Evaluation, folder: Path, files: Mapping[str, str]) -> None:
    names = ["config.json", *(name for name in weight_files(folder) if name.endswith(".safetensors"))]
    here = {name: files[name] for name in names}
    if here != dict(evaluation.model_files):
        changed = sorted(
            name for name in {*here, *evaluation.model_files} if here.get(name) != evaluation.model_files.get(name)
        )
        raise InputError(
            f"{evaluation.record} is a record of another model than {folder} ({changed[0]} differs, sha256). "
            f"Measure this one: mmzoo eval run"
        )


def _refuse_twice(evaluation: Evaluation, before: Sequence[Evaluation]) -> None:
    def names(one: Evaluation) -> set[tuple[str, ...]]:
        results = {
            (*map(str, result.unique_identifier), str(result.metric_name), result.metric_type) for result in one.results
        }
        return results | {("entry", entry.dataset_id, entry.task_id) for entry in one.entries}

    for other in before:
        if names(evaluation) & names(other):
            raise InputError(f"{evaluation.record} and {other.record} give the same numbers. Name one of them.")


def card_with(text: str, evaluations: Sequence[Evaluation], target: Target) -> str:
    """The card, with the results in its front matter and a section at its end. Without evaluations: unchanged."""
    if not evaluations:
        return text
    try:
        card = ModelCard(text)
    except (ValueError, TypeError, yaml.YAMLError) as fault:
        reason = " ".join(str(fault).split())[:160]
        raise InputError(f"README.md has no sound front matter ({reason}). Correct what stands between ---.") from fault
    data: Any = card.data  # its class says less than its docstring: any field of ModelCardData
    data.model_name = target.repository.partition("/")[2]
    data.eval_results = [result for one in evaluations for result in one.results]
    section = ["", "## Evaluations", ""]
    for one in evaluations:
        section += [*one.section, ""]
    return str(card).rstrip("\n") + "\n" + "\n".join(section).rstrip() + "\n"


def eval_results_files(evaluations: Sequence[Evaluation]) -> dict[str, bytes]:
    """`.eval_results/<suite>.yaml` -> content; nothing where no benchmark is named."""
    entries: dict[str, list[EvalResultEntry]] = {}
    for one in evaluations:
        entries.setdefault(one.suite, []).extend(one.entries)
    return {
        f".eval_results/{suite}.yaml": yaml.safe_dump(eval_result_entries_to_yaml(found), sort_keys=False).encode()
        for suite, found in entries.items()
        if found
    }
