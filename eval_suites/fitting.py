"""Whether a suite can score a model at all, asked before anything is measured; otherwise, which suites can."""

from __future__ import annotations

from typing import Any

from eval_suites.description import Suite
from eval_suites.finding import find_suites
from mmzoo.errors import InputError
from mmzoo.families import find_families


def refuse_unfit(suite: Suite, model: Any, given: str) -> None:
    """InputError for a model without the methods that the suite asks for. given: what the user called it."""
    lacking = [name for name in suite.needs if not callable(getattr(model, name, None))]
    if not lacking:
        return
    kind = str(getattr(model.config, "model_type", type(model).__name__))
    entry = find_families().get(kind)
    what = f"{kind} ({entry.family.task})" if entry else kind
    fitting = _fitting(model, entry.family.suites if entry else ())
    advice = f"Suites for it: {', '.join(fitting)}" if fitting else "No suite here scores such models"
    raise InputError(
        f"the suite {suite.name} scores {suite.subject}; {given} is {what} and has no {lacking[0]}. {advice}. "
        f"See: mmzoo eval list"
    )


def _fitting(model: Any, named: tuple[str, ...]) -> list[str]:
    """The suites that are here and that its family names or whose methods it has."""
    return [
        name
        for name, suite in find_suites().items()
        if name in named or (suite.needs and all(callable(getattr(model, one, None)) for one in suite.needs))
    ]
