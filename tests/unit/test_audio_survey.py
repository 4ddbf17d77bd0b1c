"""What is measured of audio files, and recordings that are the same in another form."""

import numpy as np
import soundfile

from local.audio_survey import measure, same_recordings
from tests.unit.made_up_voices import RATE, voice, write, write_aac


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
    assert same_recordings(measured) == [[31, *range(40, 47)]]
    assert [one.kind for one in measured[40:]] == ["wav", "flac", "mp3", "ogg", "m4a", "flac", "wav"]
