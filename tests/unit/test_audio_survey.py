"""What is measured of audio files, and recordings that are the same in another form."""

from itertools import combinations

import numpy as np
import pytest
import soundfile

import local.audio_survey
from local.audio_sketches import (
    SKETCH,
    WORDS,
    fewest_shared,
    same_recordings,
    sketch_of,
    smallest,
    words_behind,
)
from local.audio_survey import measure, survey
from tests.unit.made_up_voices import RATE, voice, write, write_aac
from utils.errors import InputError


def test_fingerprints_find_a_recording_in_another_form_and_no_other_recording(tmp_path):
    paths = [write(tmp_path / f"{speaker}_{number}.wav", voice(speaker, number, 3)) for speaker in range(5)
             for number in range(8)]
    samples = voice(3, 7, 3)
    forms = [write(tmp_path / "quiet.wav", samples // 10), write(tmp_path / "cut.flac", samples[7000:40000]),
             write(tmp_path / "x.mp3", samples, format="MP3"), write(tmp_path / "x.ogg", samples),
             write_aac(tmp_path / "x.m4a", samples), write(tmp_path / "same.flac", samples)]
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples // 2], axis=1), RATE)
    forms.append(tmp_path / "stereo.wav")
    measured = [measure(str(path)) for path in [*paths, *forms]]
    assert not any(one.fault for one in measured)
    groups = same_recordings([one.sounding for one in measured], [one.words() for one in measured])
    assert groups == [[31, *range(40, 47)]]
    assert [one.kind for one in measured[40:]] == ["wav", "flac", "mp3", "ogg", "m4a", "flac", "wav"]


def test_recordings_of_an_hour_share_words_by_chance_and_are_not_taken_for_one():
    rng = np.random.default_rng(1)
    fingerprints = [rng.choice(int(WORDS), 90000, replace=False) for _ in range(40)]
    version = np.concatenate([fingerprints[0][:70000], rng.choice(int(WORDS), 20000, replace=False)])
    sketches = [smallest(np.unique(words).astype(np.uint64)) for words in (*fingerprints, version)]
    assert max(len(np.intersect1d(sketches[one], sketches[other])) for one in range(40) for other in range(one)) >= 5
    assert np.mean([words_behind(sketch) for sketch in sketches]) == pytest.approx(90000, rel=0.1)
    assert same_recordings([str(row) for row in range(41)], sketches) == [[0, 40]]
    assert [fewest_shared(words) for words in (0, 100, 54000)] == [5, 5, 19]


def test_what_was_measured_before_an_error_is_kept(tmp_path, monkeypatch):
    paths = [str(write(tmp_path / f"{number}.wav", voice(number, 0, 1))) for number in range(5)]
    decoded = []

    def measure_once(path):
        if len(decoded) == 3:
            raise local.audio_survey.BrokenProcessPool
        decoded.append(path)
        return measure(path)

    monkeypatch.setattr(local.audio_survey, "measure", measure_once)
    with pytest.raises(InputError, match=r"killed, perhaps for want of memory, after 3 of 5; run it again, with fewer"):
        survey(paths, tmp_path / "survey.jsonl", 1)
    monkeypatch.setattr(local.audio_survey, "measure", lambda path: decoded.append(path) or measure(path))
    assert [one.seconds for one in survey(paths, tmp_path / "survey.jsonl", 1)] == [1.0] * 5
    assert decoded == paths


@pytest.mark.long
def test_different_recordings_share_as_many_words_as_the_number_of_words_says(shared):
    """Five minutes each, of other utterances."""
    paths = sorted((shared / "corpora/minivox/dev").rglob("*.flac"))
    speech = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in paths]).astype(np.float32)
    length = 300 * RATE
    sketches = [sketch_of(speech[start:start + length]) for start in range(0, len(speech) - length + 1, length)]
    words = np.mean([words_behind(sketch) for sketch in sketches])
    counts = [len(np.intersect1d(*pair)) for pair in combinations(sketches, 2)]
    assert len(sketches) > 20 and np.mean(counts) == pytest.approx(SKETCH * words / WORDS, rel=0.3)
    assert max(counts) < fewest_shared(words)
