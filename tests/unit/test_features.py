"""Features and voice activity: Kaldi's numbers, option files, and the jobs of make_feats.sh."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from steps.feat import collect_feats, compute_vad
from steps.feat.compute_feats import compute_part
from utils.audio import read_audio
from utils.errors import InputError
from utils.features.compute import compute_features
from utils.features.options import read_conf, read_feature_options
from utils.features.vad import VadOptions, energy_vad, read_vad_options
from utils.jobs.part import part_of
from utils.kaldi.ark import iterate
from utils.kaldi.data_dir import read_data_dir

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf/features"
# Files whose papers' authors take the whole band; Kaldi's outputs are of 20 to 7600 Hz, and all but one of its window.
WHOLE_BAND = ("fbank128", "fbank40_hamming")


@pytest.mark.parametrize("name", ["mfcc24", "mfcc30", "fbank40", "fbank40_hamming", "fbank64", "fbank80", "fbank128"])
def test_features_are_kaldis(shared, tmp_path, name):
    """To single precision: Kaldi's own FFT differs in the last bits, most in bands that are almost silent."""
    text = (CONF / f"{name}.conf").read_text()
    if name in WHOLE_BAND:
        text = text.replace("--low-freq=0", "--low-freq=20").replace("--high-freq=8000", "--high-freq=7600")
        text = text if "hamming" in name else text.replace("--window-type=hamming\n", "")
    (tmp_path / "x.conf").write_text(text)
    options = read_feature_options(tmp_path / "x.conf")
    folder = shared / "kaldi_reference"
    reference = dict(iterate(folder / f"features/{name}.ark"))
    assert len(reference) == 4
    for utterance, theirs in reference.items():
        ours = compute_features(read_audio(folder / f"audio/{utterance}.wav").samples, options)
        assert ours.shape == theirs.shape
        assert options.dim == theirs.shape[1]
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=3e-3)
        assert np.abs(ours - theirs).mean() < 5e-5


def test_voice_activity_is_kaldis(shared):
    folder = shared / "kaldi_reference/features"
    options = read_vad_options(CONF / "vad.conf")
    features = dict(iterate(folder / "mfcc24.ark"))
    for name, theirs in iterate(folder / "vad.ark"):
        assert np.array_equal(energy_vad(features[name], options), theirs)


def test_voice_activity_by_hand():
    energy = np.array([0, 0, 10, 0, 0, 10, 10, 0], np.float32)[:, None]  # mean 3.75
    options = VadOptions(energy_threshold=1, energy_mean_scale=1, frames_context=1, proportion_threshold=0.5)
    # shares of voiced frames in the contexts: 0, 1/3, 1/3, 1/3, 1/3, 2/3, 2/3, 1/2
    assert energy_vad(energy, options).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert energy_vad(energy, VadOptions(1, 1, 0, 0.6)).tolist() == [0, 0, 1, 0, 0, 1, 1, 0]
    assert energy_vad(np.zeros((6, 3), np.float32), options).tolist() == [0] * 6
    three_of_five = np.float32([[2], [2], [2], [0], [0]])  # a share of 0.6, in float32
    assert energy_vad(three_of_five, VadOptions(1, 0, 2, 0.6)).tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("path", sorted(CONF.glob("*.conf")), ids=lambda path: path.name)
def test_the_recipes_files_are_valid(path):
    if path.name == "vad.conf":
        assert read_vad_options(path) == VadOptions(5.5, 0.5, 2, 0.12)
        return
    options = read_feature_options(path)
    assert path.stem.startswith(f"{options.kind}{options.dim}")
    other = path.stem == "fbank80_wespeaker"  # another toolkit's: up to half the rate, frames within the audio
    band = (0, 8000) if path.stem in WHOLE_BAND else (20, 0) if other else (20, 7600)
    assert (options.kaldi.mel_opts.low_freq, options.kaldi.mel_opts.high_freq) == band
    assert options.kaldi.frame_opts.snip_edges == other
    assert options.kaldi.frame_opts.dither == 0


def test_every_option_arrives(tmp_path):
    path = tmp_path / "c"
    path.write_text("# as in Kaldi\n--feature-type=fbank # ours\n\n--use-energy=true\n--frame-shift=20\n"
                    "--low-freq=100\n--num-mel-bins=24  # few\n--use-log-fbank=false\n--sample-frequency=8000\n"
                    "--window-type=hanning")
    options = read_feature_options(path)
    assert (options.kind, options.dim, options.rate) == ("fbank", 25, 8000)
    assert options.kaldi.frame_opts.frame_shift_ms == 20
    assert options.kaldi.frame_opts.snip_edges  # Kaldi's default
    assert options.kaldi.frame_opts.window_type == "hanning"
    assert not options.kaldi.use_log_fbank
    features = compute_features(np.random.default_rng(0).normal(0, 99, 8000).astype(np.float32), options)
    assert features.shape == (49, 25)


@pytest.mark.parametrize(("text", "message"), [
    ("--num-ceps=24", "add the line --feature-type=mfcc"),
    ("--feature-type=plp", "--feature-type=plp; add the line"),
    ("--feature-type=mfcc\n--num-cepstra=24", "line 2: unknown option --num-cepstra; allowed: blackman-coeff"),
    ("--feature-type=fbank\n--num-ceps=24", "unknown option --num-ceps"),
    ("--feature-type=mfcc\n--num-ceps=24\n--num-ceps=30", "line 3: --num-ceps is given twice"),
    ("--feature-type=mfcc\nnum-ceps=24", "line 2: expected --name=value"),
    ("--feature-type=mfcc\n--num-ceps 24", "line 2: expected --name=value"),
    ("--feature-type=mfcc\n--num-ceps=many", "--num-ceps: expected a whole number below 2^31, found 'many'"),
    ("--feature-type=mfcc\n--snip-edges=no", "--snip-edges: expected true or false"),
    ("--feature-type=mfcc\n--dither=1", "--dither must be 0"),
    ("--feature-type=mfcc\n--num-ceps=40", "--num-ceps must be 1 to --num-mel-bins"),
    ("--feature-type=mfcc\n--high-freq=9000", "<= 8000 Hz must hold"),
    ("--feature-type=mfcc\n--low-freq=500\n--high-freq=-7600", "must hold"),
    ("--feature-type=mfcc\n--window-type=kaiser", "--window-type must be one of"),
    ("--feature-type=mfcc\n--frame-shift=0", "must be 1 to 1000 ms"),
    ("--feature-type=mfcc\n--frame-length=1e9", "must be 1 to 1000 ms"),
    ("--feature-type=mfcc\n--low-freq=nan", "--low-freq: expected a number below 2^31, found 'nan'"),
    ("--feature-type=mfcc\n--preemphasis-coefficient=-inf", "--preemphasis-coefficient: expected a number below 2^31"),
    ("--feature-type=mfcc\n--preemphasis-coefficient=-1", "--preemphasis-coefficient must be 0 to 1"),
    ("--feature-type=mfcc\n--cepstral-lifter=-1", "--cepstral-lifter must not be negative"),
    ("--feature-type=mfcc\n--num-ceps=99999999999", "--num-ceps: expected a whole number below 2^31"),
    ("--feature-type=fbank\n--num-mel-bins=0", "--num-mel-bins must be"),
    ("--feature-type=fbank\n--sample-frequency=0", "--sample-frequency must be"),
])
def test_wrong_options_are_told(tmp_path, text, message):
    (tmp_path / "c").write_text(text + "\n")
    with pytest.raises(InputError) as error:
        read_feature_options(tmp_path / "c")
    assert message in str(error.value)
    assert str(tmp_path / "c") in str(error.value)
    with pytest.raises(InputError):
        read_vad_options(tmp_path / "c")


def test_conf_without_types(tmp_path):
    (tmp_path / "c").write_text("--a-b=1 # one\n")
    assert read_conf(tmp_path / "c") == {"a-b": "1"}


def test_too_short_utterances():
    options = read_feature_options(CONF / "fbank64.conf")
    assert compute_features(np.ones(80, np.float32), options).shape == (1, 64)
    with pytest.raises(InputError, match="79 samples at 16000 Hz are too short"):
        compute_features(np.ones(79, np.float32), options)
    assert np.isfinite(compute_features(np.zeros(8000, np.float32), options)).all()


@pytest.mark.parametrize(("count", "jobs"), [(10, 3), (2, 5), (7, 7), (100, 1)])
def test_parts_cover_everything_once(count, jobs):
    parts = [part_of(count, job, jobs) for job in range(1, jobs + 1)]
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(InputError):
        part_of(count, jobs + 1, jobs)


@pytest.mark.parametrize("jobs", [1, 2, 3, 7])
def test_jobs_share_whole_groups(jobs):
    parts = [part_of(150, job, jobs, 32) for job in range(1, jobs + 1)]
    assert [number for part in parts for number in part] == list(range(150))
    assert all(part.start % 32 == 0 for part in parts if part)


@pytest.mark.parametrize("text", ["--vad-frames-context=-1", "--vad-frames-context=99999999",
                                  "--vad-proportion-threshold=2", "--vad-proportion-threshold=nan"])
def test_wrong_options_of_voicing_are_told(tmp_path, text):
    (tmp_path / "c").write_text(text + "\n")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/c: ") + ".*--vad-"):
        read_vad_options(tmp_path / "c")


@pytest.fixture
def data(tmp_path):
    """Six utterances of two speakers in a raw data directory with a trial list."""
    folder = tmp_path / "data with space"
    (folder / "trials").mkdir(parents=True)
    rng = np.random.default_rng(5)
    ids = [f"s{i // 3}-u{i}" for i in range(6)]
    for index, name in enumerate(ids):
        loud = rng.normal(0, 3000, 8000 + 160 * index) * (np.arange(8000 + 160 * index) % 4000 < 2000)
        soundfile.write(folder / f"{name}.wav", loud.astype(np.int16), 16000)
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name in ids))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in ids))
    (folder / "spk2utt").write_text(f"s0 {' '.join(ids[:3])}\ns1 {' '.join(ids[3:])}\n")
    (folder / "trials/veri").write_text("s0-u0 s1-u3 nontarget\n")
    return folder


def make(data, output, jobs=2, max_failed=0.0, conf="mfcc24"):
    options = read_feature_options(CONF / f"{conf}.conf")
    for job in range(1, jobs + 1):
        compute_part(options, data, output, job, jobs, compression=3, pipes=False)
    collect_feats.collect(data, output, jobs, max_failed)
    return dict(iterate(output / "feats.scp"))


def test_the_output_is_a_complete_data_directory(data, tmp_path):
    feats = make(data, tmp_path / "out")
    out = read_data_dir(tmp_path / "out")
    assert list(feats) == out.ids == read_data_dir(data).ids
    assert [len(features) for features in feats.values()] == list(map(int, out.columns["utt2num_frames"]))
    assert len(feats["s0-u0"]) == 50
    for table in ("wav.scp", "utt2spk", "spk2utt", "trials/veri"):
        assert (tmp_path / "out" / table).read_bytes() == (data / table).read_bytes()


def test_the_number_of_jobs_changes_nothing(data, tmp_path):
    one = make(data, tmp_path / "one", jobs=1)
    seven = make(data, tmp_path / "seven", jobs=7)  # more jobs than utterances
    assert list(one) == list(seven)
    assert all(np.array_equal(one[name], seven[name]) for name in one)


def test_speed_factors_are_applied(data, tmp_path):
    plain = make(data, tmp_path / "plain")
    (data / "utt2speed").write_text("".join(f"{name} {'0.5' if name == 's0-u1' else '1'}\n" for name in plain))
    slow = make(data, tmp_path / "slow")
    assert len(slow["s0-u1"]) == 2 * len(plain["s0-u1"])
    assert np.array_equal(slow["s0-u0"], plain["s0-u0"])
    assert (tmp_path / "slow/utt2speed").exists()


def test_failures_stop_or_are_left_out(data, tmp_path, capsys):
    (data / "s0-u1.wav").write_bytes(b"")
    soundfile.write(data / "s1-u4.wav", np.zeros(20), 16000)
    with pytest.raises(InputError, match="2 of 6 utterances have no features: s0-u1, s1-u4; repair or remove"):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out/feats.scp").exists()
    text = capsys.readouterr().err
    assert "warning: s0-u1: " in text
    assert "empty, 0 bytes" in text
    assert "s1-u4.wav: 20 samples at 16000 Hz are too short for one frame" in text
    with pytest.raises(InputError, match="2 of 6"):
        make(data, tmp_path / "out", max_failed=0.3)
    assert list(make(data, tmp_path / "out", max_failed=0.34)) == ["s0-u0", "s0-u2", "s1-u3", "s1-u5"]
    assert read_data_dir(tmp_path / "out").speakers == ["s0", "s0", "s1", "s1"]


def test_conversions_are_counted_for_the_directory(data, tmp_path, capsys):
    for name, rate in (("s0-u0", 44100), ("s1-u3", 44100), ("s1-u5", 8000)):
        soundfile.write(data / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, (rate, 2)), rate)
    feats = make(data, tmp_path / "out")
    assert len(feats["s1-u5"]) == len(feats["s0-u0"]) == 100
    text = capsys.readouterr().err
    assert "2 files of 44100 Hz, converted: s0-u0, " in text
    assert "3 files of 2 channels, converted: s0-u0, " in text
    report = json.loads((tmp_path / "out/log/report.2.json").read_text())
    assert report["notes"]["8000 Hz"] == [1, ["s1-u5"]]


def test_audio_without_sound_is_named_for_the_directory(data, tmp_path, capsys):
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    plain = make(data, tmp_path / "plain")
    assert "no speech" not in capsys.readouterr().err
    for name, samples in (("s0-u0", np.zeros(8000)), ("s0-u1", np.full(8000, 0.3)), ("s0-u2", np.zeros((8000, 2))),
                          ("s1-u3", np.stack([noise, -noise], axis=1))):
        soundfile.write(data / f"{name}.wav", samples, 16000)
    feats = make(data, tmp_path / "out")
    text = capsys.readouterr().err
    assert f"warning: {data}: 2 files of digital silence, without speech: s0-u0, s0-u2\n" in text
    assert "1 files of one constant value, without speech: s0-u1\n" in text
    assert "1 files of channels that cancel each other, without speech: s1-u3\n" in text
    for name in ("s1-u4", "s1-u5"):
        assert np.array_equal(feats[name], plain[name])


def test_one_recording_without_finite_features_is_left_out(data, tmp_path, capsys):
    """NaN, infinite, and numbers so large that their power is infinite."""
    bad = {"s0-u1": np.nan, "s0-u2": np.inf, "s1-u4": 1e30}
    for name, value in bad.items():
        samples = np.random.default_rng(0).normal(0, 0.1, 8000)
        samples[4000] = value
        soundfile.write(data / f"{name}.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="3 of 6 utterances have no features: s0-u1, s0-u2, s1-u4; repair"):
        make(data, tmp_path / "out")
    assert "s1-u4.wav: NaN or infinite features; the largest sample is 3.2768e+34 of 32768" in capsys.readouterr().err
    assert list(make(data, tmp_path / "out", max_failed=0.5)) == ["s0-u0", "s1-u3", "s1-u5"]


def test_features_do_not_depend_on_how_samples_are_handed_over(monkeypatch):
    samples = np.random.default_rng(0).normal(0, 1000, 20001).astype(np.float32)
    for name in ("fbank80", "mfcc24"):
        options = read_feature_options(CONF / f"{name}.conf")
        expected = compute_features(samples, options)
        for size in (1000, 20000, 20001):
            monkeypatch.setattr("utils.features.compute.AT_ONCE", size)
            assert np.array_equal(compute_features(samples, options), expected)


def test_commands_in_wav_scp(data, tmp_path):
    text = (data / "wav.scp").read_text().replace(f"s0-u0 {data}/s0-u0.wav", f"s0-u0 cat '{data}/s0-u0.wav' |")
    (data / "wav.scp").write_text(text)
    with pytest.raises(InputError, match="1 of 6 utterances"):
        make(data, tmp_path / "out")
    options = read_feature_options(CONF / "mfcc24.conf")
    compute_part(options, data, tmp_path / "out", 1, 1, compression=3, pipes=True)
    collect_feats.collect(data, tmp_path / "out", 1, 0)
    assert len(read_data_dir(tmp_path / "out").ids) == 6


def test_voice_activity_of_a_directory(data, tmp_path):
    out = tmp_path / "out"
    soundfile.write(data / "s1-u5.wav", np.zeros(8000), 16000)
    feats = make(data, out)
    options = read_vad_options(CONF / "vad.conf")
    unvoiced = [compute_vad.compute_part(options, out, job, 2) for job in (1, 2)]
    assert unvoiced == [[], ["s1-u5"]]
    found = dict(iterate(out / "vad.1.scp")) | dict(iterate(out / "vad.2.scp"))
    assert list(found) == list(feats)
    for name, vad in found.items():
        assert np.array_equal(vad, energy_vad(feats[name], options))
    assert not found["s1-u5"].any()
    assert 0.3 < found["s0-u0"].mean() < 0.8
    shutil.copy(CONF / "fbank64.conf", out / "feats.conf")
    with pytest.raises(InputError, match="voice activity needs MFCC"):
        compute_vad.compute_part(options, out, 1, 1)


def test_changed_input_is_noticed(data, tmp_path):
    options = read_feature_options(CONF / "mfcc24.conf")
    compute_part(options, data, tmp_path / "out", 1, 1, compression=3, pipes=False)
    for table in ("wav.scp", "utt2spk"):
        lines = (data / table).read_text().splitlines(keepends=True)
        (data / table).write_text("".join(lines[:-1]))
    (data / "spk2utt").write_text("s0 s0-u0 s0-u1 s0-u2\ns1 s1-u3 s1-u4\n")
    with pytest.raises(InputError, match="changed; run again"):
        collect_feats.collect(data, tmp_path / "out", 1, 0)
