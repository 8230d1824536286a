"""Where and with what a run was made, for the facts of its report."""

from __future__ import annotations

import json
from pathlib import Path


def run_environment(run: Path) -> dict[str, str]:
    """Processor, GPU, versions and commit, as the run folder's `run.json` has them."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    hardware = record["hardware"]
    return {
        "processor": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB",
        "GPU": ", ".join(hardware["gpus"]) or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "commit": record["git_commit"] or "not a clone",
    }
