"""Fixtures of all tests: where the shared data lie, and small data directories."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data (VOX_SHARED, default ../shared beside the repository); skip without them."""
    folder = Path(os.environ.get("VOX_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "kaldi_reference").is_dir():
        pytest.skip(f"no shared data in {folder}; set VOX_SHARED to the folder with kaldi_reference")
    return folder
