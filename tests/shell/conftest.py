"""Fixtures of the tests of steps."""

import pytest

from tests.shell.back_end import make_work


@pytest.fixture
def work(tmp_path):
    """A work folder with configuration, training and test embeddings, and a list of all test pairs."""
    return make_work(tmp_path)
