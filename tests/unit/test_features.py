"""Features, VAD, normalisation, deltas and archives: parity with Kaldi; chunks; files that are no good."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import kaldiio
import numpy as np
import pytest
import soundfile

from steps.feat.cmvn import normalise
from steps.feat.deltas import add_deltas
from steps.feat.features import compute_features
from steps.feat.frontend import FrontendOptions, apply_frontend, frontend_margin
from steps.feat.options import read_feature_options
from steps.feat.vad import energy_vad, read_vad_options
from utils.ark import ArkWriter, RowReader, iterate, read_matrix, read_table, read_vectors
from utils.audio import change_speed, read_audio
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs/voxceleb/conf/features"
KINDS = ["mfcc24", "mfcc30", "fbank40", "fbank64", "fbank80", "fbank128", "fbank40_hamming"]


@pytest.fixture(scope="module")
def kaldi(shared):
    return shared / "kaldi_reference"


def table(path):
    return dict(iterate(path))


@pytest.mark.parametrize("kind", KINDS)
def test_features_agree_with_kaldi(kaldi, kind):
    options = read_feature_options(CONF / f"{kind}.conf")
    expected = table(kaldi / f"features/{kind}.ark")
    assert len(expected) == 4
    for name, theirs in expected.items():
        ours = compute_features(read_audio(kaldi / f"audio/{name}.wav").samples, options)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=3e-3, rtol=1e-3)
        assert np.abs(ours - theirs).mean() < 1e-4


def test_vad_cmvn_and_deltas_agree_with_kaldi(kaldi):
    mfcc = table(kaldi / "features/mfcc24.ark")
    expected = {name: table(kaldi / f"features/{name}.ark")
                for name in ("vad", "cmn300", "cmvn300", "deltas2w3", "ivector_input")}
    vad_options = read_vad_options(CONF / "vad.conf")
    chain = FrontendOptions(deltas=2, delta_window=3, cmn="sliding", cmn_window=300, vad=True)
    for name, features in mfcc.items():
        vad = energy_vad(features, vad_options)
        np.testing.assert_array_equal(vad, expected["vad"][name])
        np.testing.assert_allclose(normalise(features, 300), expected["cmn300"][name], atol=1e-3)
        np.testing.assert_allclose(normalise(features, 300, True), expected["cmvn300"][name], atol=1e-3)
        np.testing.assert_allclose(add_deltas(features, 2, 3), expected["deltas2w3"][name], atol=1e-4)
        np.testing.assert_allclose(apply_frontend(features, vad, chain), expected["ivector_input"][name], atol=1e-3)


@pytest.mark.parametrize("method", [1, 2, 3, 4, 5])
def test_compressed_archives_are_kaldis(kaldi, tmp_path, method):
    path = kaldi / f"features/mfcc24_compressed{method}.ark"
    read = table(path)
    for name, theirs in kaldiio.load_ark(str(path)):  # another reader of the same files
        np.testing.assert_allclose(read[name], theirs, atol=5e-3)  # its float arithmetic is coarser
    with ArkWriter(tmp_path / "feats", compression=method) as writer:
        for name, features in table(kaldi / "features/mfcc24.ark").items():
            writer.write(name, features)
    for name, ours in table(tmp_path / "feats.ark").items():
        np.testing.assert_allclose(ours, read[name], atol=0.02 if method in (1, 2, 5) else 1e-4)


@pytest.mark.parametrize("method", [0, 1, 3, 5])
def test_rows_are_read_alone(tmp_path, method):
    rng = np.random.default_rng(0)
    with ArkWriter(tmp_path / "a b", compression=method) as writer:
        for name in ("u1", "u2"):
            writer.write(name, rng.normal(size=(37, 5)))
    whole = table(tmp_path / "a b.scp")
    reader = RowReader(tmp_path / "a b.scp")
    assert list(reader.ids) == ["u1", "u2"]
    assert reader.num_rows.tolist() == [37, 37]
    np.testing.assert_array_equal(reader.read(1, 5, 20), whole["u2"][5:20])
    np.testing.assert_array_equal(reader.read(0), whole["u1"])
    with pytest.raises(InputError, match="u1 has 37 rows; 30 to 40 asked for"):
        reader.read(0, 30, 40)
    where = dict(zip(*read_table(tmp_path / "a b.scp"), strict=True))["u2"]
    np.testing.assert_array_equal(read_matrix(f"{where}[3:6]"), whole["u2"][3:7])


@pytest.mark.parametrize("options", [
    FrontendOptions(), FrontendOptions(deltas=2, delta_window=3), FrontendOptions(cmn="sliding", cmn_window=50),
    FrontendOptions(deltas=1, cmn="sliding", cmn_window=40, norm_vars=True)], ids=str)
def test_a_chunk_with_its_margin_equals_the_slice_of_the_whole(options):
    features = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    whole = apply_frontend(features, None, options)
    margin = frontend_margin(options)
    for first, end in ((0, 60), (120, 180), (240, 300)):
        start, stop = max(0, first - margin), min(300, end + margin)
        chunk = apply_frontend(features[start:stop], None, options, keep=(first - start, end - start))
        np.testing.assert_allclose(chunk, whole[first:end], atol=1e-4)


def test_an_utterance_without_a_voiced_frame_keeps_its_frames():
    features = np.ones((20, 3), np.float32)
    kept = apply_frontend(features, np.zeros(20), FrontendOptions(vad=True))
    np.testing.assert_array_equal(kept, features)
    with pytest.raises(InputError, match="20 frames but 5 decisions"):
        apply_frontend(features, np.zeros(5), FrontendOptions(vad=True))


def tone(rate, seconds=0.5, frequency=440):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def test_any_rate_channel_count_and_container_becomes_16_khz_mono(tmp_path):
    plain = tmp_path / "plain.wav"
    soundfile.write(plain, tone(16000), 16000, subtype="PCM_16")
    expected = read_audio(plain)
    assert expected.notes == ()
    np.testing.assert_array_equal(expected.samples, soundfile.read(plain, dtype="int16")[0])
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(44100)] * 2, axis=1), 44100)
    soundfile.write(tmp_path / "eight.wav", tone(16000), 16000, subtype="PCM_U8")
    soundfile.write(tmp_path / "x.flac", tone(16000), 16000)
    with av.open(str(tmp_path / "x.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(16000)[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    for name, notes in (("stereo.wav", ("44100 Hz", "2 channels")), ("eight.wav", ("8 bits",)), ("x.flac", ()),
                        ("x.m4a", ())):
        found = read_audio(tmp_path / name)
        assert found.notes == notes
        spectrum = np.abs(np.fft.rfft(found.samples[1000:6000]))
        assert np.argmax(spectrum) * 16000 / 5000 == pytest.approx(440, abs=4)
        assert np.abs(found.samples[1000:6000]).max() == pytest.approx(16384, rel=0.05)


def test_speed_changes_length_and_pitch():
    fast = change_speed(tone(16000).astype(np.float32), 1.1)
    assert len(fast) == pytest.approx(8000 / float(Fraction("1.1")), abs=2)
    spectrum = np.abs(np.fft.rfft(fast[500:5500]))
    assert np.argmax(spectrum) * 16000 / 5000 == pytest.approx(484, abs=4)


def bad_files(folder):
    """Write one file of each kind that is no good; return name -> what the message says."""
    soundfile.write(folder / "good.wav", tone(16000), 16000)
    content = (folder / "good.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[:len(content) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "header.wav").write_bytes(content[:44])
    (folder / "text.wav").write_text("this is no sound\n" * 50)
    nan = tone(16000)
    nan[100] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(folder / "short.wav", tone(16000)[:3], 16000)
    return {"cut": "truncated", "empty": "0 bytes", "header": "truncated|no samples", "text": "not audio",
            "nan": "NaN", "nothing": "No such file"}


def test_bad_audio_is_named_with_its_cause(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=f"{name}.wav: .*({message})"):
            read_audio(tmp_path / f"{name}.wav")
    with pytest.raises(InputError, match="commands are run only with --allow-pipes true"):
        read_audio("touch /tmp/never |")


def make_feats(data, out, *options):
    return subprocess.run(["bash", str(ROOT / "steps/make_feats.sh"), *options, str(CONF / "fbank40.conf"), str(data),
                           str(out)], capture_output=True, text=True, check=False)


def test_a_directory_with_bad_files_stops_or_leaves_out_a_stated_share(tmp_path):
    audio = tmp_path / "it's; a \"folder\""
    audio.mkdir()
    bad_files(audio)
    for name in ("one", "two", "three"):
        (audio / f"{name}.wav").write_bytes((audio / "good.wav").read_bytes())
    data = tmp_path / "data"
    data.mkdir()
    files = sorted(path.stem for path in audio.glob("*.wav"))
    (data / "wav.scp").write_text("".join(f"s-{name} {audio}/{name}.wav\n" for name in files))
    (data / "utt2spk").write_text("".join(f"s-{name} s\n" for name in files))
    (data / "spk2utt").write_text(f"s {' '.join('s-' + name for name in files)}\n")
    done = make_feats(data, tmp_path / "out")
    assert done.returncode == 1
    assert "utterances have no features: s-cut, s-empty, s-header" in done.stderr
    assert not (tmp_path / "out/feats.scp").exists()
    done = make_feats(data, tmp_path / "out", "--max-failed", "0.7")
    assert done.returncode == 0, done.stderr
    kept, _ = read_table(tmp_path / "out/feats.scp")
    assert [name for name in ("s-good", "s-one", "s-three", "s-two") if name in kept] == [
        "s-good", "s-one", "s-three", "s-two"]
    assert "s-nan" not in kept
    assert read_table(tmp_path / "out/utt2spk")[0] == kept
    assert make_feats(data, data).returncode == 1  # never onto its input


def test_the_number_of_jobs_changes_nothing(kaldi, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    paths = sorted((kaldi / "audio").glob("*.wav"))
    (data / "wav.scp").write_text("".join(f"{path.stem} {path}\n" for path in paths))
    (data / "utt2spk").write_text("".join(f"{path.stem} {path.stem[:7]}\n" for path in paths))
    (data / "spk2utt").write_text("".join(f"{path.stem[:7]} {path.stem}\n" for path in paths))
    for jobs in ("1", "3"):
        assert make_feats(data, tmp_path / jobs, "--nj", jobs).returncode == 0
    one, three = table(tmp_path / "1/feats.scp"), table(tmp_path / "3/feats.scp")
    assert list(one) == list(three)
    for name in one:
        np.testing.assert_array_equal(one[name], three[name])


def test_damaged_archives_are_refused_without_allocating(tmp_path):
    with ArkWriter(tmp_path / "x") as writer:
        writer.write("u", np.ones((4, 3)))
    good = (tmp_path / "x.ark").read_bytes()
    for damaged in (good[:-5], good.replace(b"\x04\x04\0\0\0", b"\x04\xff\xff\xff\x7f", 1),
                    good.replace(b"\x04\x04\0\0\0", b"\x04\xfc\xff\xff\xff", 1)):
        (tmp_path / "x.ark").write_bytes(damaged)
        with pytest.raises(InputError, match="x.ark"):
            list(iterate(tmp_path / "x.ark"))
    (tmp_path / "pipe.scp").write_text("u touch /tmp/never |\n")
    with pytest.raises(InputError, match="is a command and is not run"):
        list(iterate(tmp_path / "pipe.scp"))


def test_vectors_are_written_and_read_whole(tmp_path):
    with ArkWriter(tmp_path / "v") as writer:
        writer.write("a", np.arange(3.0))
        writer.write("b", np.arange(3.0) + 1)
    ids, vectors = read_vectors(tmp_path / "v.scp")
    assert ids == ["a", "b"]
    assert vectors.tolist() == [[0, 1, 2], [1, 2, 3]]
    with pytest.raises(InputError, match="NaN"), ArkWriter(tmp_path / "bad") as writer:
        writer.write("a", np.array([np.nan]))
    assert not list(tmp_path.glob("bad*"))


def test_wrong_options_in_a_conf_name_the_line(tmp_path):
    (tmp_path / "x.conf").write_text("--feature-type=mfcc\n--num-cep=24\n")
    with pytest.raises(InputError, match="x.conf: line 2: unknown option --num-cep"):
        read_feature_options(tmp_path / "x.conf")


def test_tools_say_their_name_in_errors(tmp_path):
    done = subprocess.run([sys.executable, "-m", "utils.validate_data_dir", str(tmp_path)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert "validate_data_dir: error: " in done.stderr
