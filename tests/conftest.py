"""What every test shares: one thread, reproducible examples, and no file of the user's."""

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

import gcl_core

# Inherited by every process that a test starts: the same package, one thread, a cache of its own.
os.environ["PYTHONPATH"] = str(Path(gcl_core.__file__).parents[1])
os.environ["OMP_NUM_THREADS"] = "1"
CACHE = tempfile.TemporaryDirectory(prefix="gcl-test-cache-")
os.environ["GCL_CACHE"] = CACHE.name
os.environ["GCL_CHECKPOINT_SECONDS"] = "0"  # after each epoch, however short
torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "gcl", deadline=None, derandomize=True, database=None, max_examples=60
)
hypothesis.settings.load_profile("gcl")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder for this test only."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GCL_CACHE", str(folder))
    return folder
