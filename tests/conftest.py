"""Fixtures that every test folder may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens and real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MMZOO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set MMZOO_SHARED)")
    return folder
