"""The first look's simulated speakers are as hard to tell apart as real ones."""

import pytest

from tests.test_first_look import look
from tests.tiny import CONF, results


@pytest.mark.long
def test_the_simulated_speakers_are_as_hard_as_real_ones(tmp_path):
    """Small i-vectors on the corpus of the recipe without arguments: as on real speech, PLDA's EER is a few percent,
    that of cosine clearly higher, and non-targets of the same gender are harder."""
    done = look(tmp_path, CONF, "--systems", "ivector", "--simulated-speakers", "60", "--stop-stage", "7",
                "--set", "ubm.num_gaussians=64 ubm.num_frames=100000")
    assert done.returncode == 0, done.stderr[-3000:]
    eer = {(row[2], row[1]): float(row[5]) for row in results(tmp_path)[1:]}
    easy, hard = "simulated_test", "simulated_test_hard"
    assert 3 < eer[easy, "plda"] < 15
    assert eer[easy, "cosine"] > 1.3 * eer[easy, "plda"] and eer[hard, "cosine"] > 1.3 * eer[hard, "plda"]
    assert eer[hard, "plda"] > 1.2 * eer[easy, "plda"] and eer[hard, "cosine"] > eer[easy, "cosine"]
