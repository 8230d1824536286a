"""What a figure was made on: the machine, the versions of what computes, and the commit of this code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import mmzoo

PACKAGES = (
    *("torch", "torchvision", "lightning", "transformers", "jsonargparse", "numpy", "pillow", "safetensors"),
    *("scikit-image", "timm"),
)


def versions() -> dict[str, str]:
    """Versions of mmzoo, Python and the packages that numbers depend on."""
    found = {"mmzoo": mmzoo.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB and GPU names."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
        "gpus": gpus,
    }


def git_commit() -> str | None:
    """The commit of the clone that this code runs from, with "+changes" when files differ; None outside a clone."""
    root = Path(mmzoo.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + "+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip()
