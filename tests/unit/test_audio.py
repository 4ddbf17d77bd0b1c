"""Reading audio: every format, exact integers, and one clear error for each kind of bad file."""

import os
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from local.preflight import file_fault
from utils import audio
from utils.audio import Recording, change_speed, read_audio, resample
from utils.errors import InputError

RATE = 16000


def tone(seconds=2.0, rate=RATE, frequency=440.0):
    return 0.25 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def pitch(samples, rate=RATE):
    """Frequency of the strongest component, Hz."""
    middle = samples[len(samples) // 4:3 * len(samples) // 4] * np.hanning(3 * len(samples) // 4 - len(samples) // 4)
    return np.argmax(np.abs(np.fft.rfft(middle, 1 << 18))) * rate / (1 << 18)


def write_aac(path, rate, channels, form, **options):
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        samples = np.tile(tone(2, rate).astype(np.float32), (channels, 1))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One sound in every format; names do not show the format."""
    path = tmp_path_factory.mktemp("audio")
    sound = tone()
    for form in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(path / f"a.{form}", sound, RATE, format=form.upper())
    soundfile.write(path / "8bit", sound, RATE, format="WAV", subtype="PCM_U8")
    soundfile.write(path / "float", sound, RATE, format="WAV", subtype="FLOAT")
    soundfile.write(path / "24bit", sound, RATE, format="WAV", subtype="PCM_24")
    soundfile.write(path / "8k", tone(2, 8000), 8000, format="WAV")
    soundfile.write(path / "stereo", np.stack([tone(2, 44100)] * 2, axis=1), 44100, format="WAV")
    write_aac(path / "a.m4a", RATE, 1, "mp4")
    write_aac(path / "stereo.m4a", 44100, 2, "mp4")
    write_aac(path / "a.aac", RATE, 1, "adts")
    return path


@pytest.mark.parametrize(("name", "notes"), [
    ("a.wav", ()), ("a.flac", ()), ("a.ogg", ()), ("a.mp3", ()), ("float", ()), ("24bit", ()), ("8bit", ("8 bits",)),
    ("8k", ("8000 Hz",)), ("stereo", ("44100 Hz", "2 channels")), ("a.m4a", ()), ("a.aac", ()),
    ("stereo.m4a", ("44100 Hz", "2 channels")),
])
def test_every_format_becomes_16_khz_mono(folder, name, notes):
    found = read_audio(folder / name)
    assert found.notes == notes
    assert found.samples.dtype == np.float32
    assert found.samples.ndim == 1
    assert abs(len(found.samples) - 2 * RATE) < 3000  # an encoder may add silence
    assert abs(pitch(found.samples) - 440) < 1
    assert 0.9 < np.abs(found.samples[5000:-5000]).max() / (0.25 * 32768) < 1.1


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_sixteen_bits_are_exact(tmp_path, form):
    integers = np.random.default_rng(4).integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a b;'c", integers, RATE, format=form)
    assert np.array_equal(read_audio(tmp_path / "a b;'c").samples, integers)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a", np.array([[100, 300], [-6, 6]], np.int16), RATE, format="WAV")
    assert read_audio(tmp_path / "a").samples.tolist() == [200, 0]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "empty, 0 bytes"),
    (b"this is a text, renamed to wav\n", "not audio that can be read (Format not recognised; begins with b'this is "),
    (b"#EXTM3U\n/etc/passwd\n", "not audio that can be read"),
    (b"ffconcat version 1.0\nfile a.wav\n", "not audio that can be read"),
    (b"\xff\xf1" + b"x" * 400, "damaged or truncated"),
    (b"\xff", "not audio"),
    (b"\0\0\0\x20ftypisom" + b"\0" * 400, "damaged or truncated"),
])
def test_what_is_no_audio(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_audio(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "copy it again or remove it" in str(error.value)


def test_an_unknown_codec_is_refused(folder, tmp_path):
    (tmp_path / "x.m4a").write_bytes((folder / "a.m4a").read_bytes().replace(b"stsd", b"zzzz"))
    with pytest.raises(InputError, match="x.m4a: damaged, or audio with an unknown codec; copy it again"):
        read_audio(tmp_path / "x.m4a")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a", "a.aac", "float"])
def test_truncated_files(folder, tmp_path, name):
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[:len(content) // 2])
    with pytest.raises(InputError, match="truncated|damaged"):
        read_audio(tmp_path / name)


@pytest.mark.parametrize("form", ["ogg", "m4a"])
def test_wherever_a_longer_file_is_cut(tmp_path, form):
    """At any byte after the header, including the ends of pages and packets."""
    path = tmp_path / "whole"
    if form == "ogg":
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 6 * RATE), RATE, format="OGG")
    else:
        write_aac(path, RATE, 1, "mp4", movflags="faststart")
    content = path.read_bytes()
    assert len(read_audio(path).samples) >= 2 * RATE
    if form == "ogg":
        ends = [content.index(b"OggS", 10_000)]
    else:
        with av.open(str(path)) as container:
            ends = [packet.pos for packet in container.demux(audio=0) if packet.pos][10:-5:5]
    for size in (*range(5000, len(content) - 1000, 1999), *ends):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(InputError, match="truncated|damaged"):
            read_audio(tmp_path / "cut")


def test_wav_cut_by_a_few_bytes(folder, tmp_path):
    (tmp_path / "a").write_bytes((folder / "a.wav").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"truncated after 2\.00 s"):
        read_audio(tmp_path / "a")


def test_missing_folder_empty_and_nan(tmp_path):
    for path, message in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=message):
            read_audio(path)
    soundfile.write(tmp_path / "a", np.zeros(0), RATE, format="WAV")
    with pytest.raises(InputError, match="holds no samples"):
        read_audio(tmp_path / "a")
    for wrong in (np.nan, np.inf):
        soundfile.write(tmp_path / "a", np.array([0, wrong, 0]), RATE, format="WAV", subtype="FLOAT")
        with pytest.raises(InputError, match="NaN or infinite samples"):
            read_audio(tmp_path / "a")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/dev/zero", tmp_path / "link")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path / "link"):
        for read in (read_audio, Recording):
            with pytest.raises(InputError, match=f"{path}: not a regular file, but a device, FIFO or socket; copy"):
                read(path)
        assert file_fault(str(path)) == "unreadable: not a regular file"
    for read in (read_audio, Recording):
        with pytest.raises(InputError, match=r"'a.x00.wav': .*embedded null .*; copy it again"):
            read("a\0.wav")


@pytest.mark.parametrize(("form", "rate", "channels"), [
    ("WAV", RATE, 1), ("FLAC", RATE, 2), ("FLAC", 44100, 6), ("WAV", 8000, 1), ("OGG", 48000, 2)])
@pytest.mark.parametrize("size", [3000, 20011, 1 << 20])
def test_blocks_give_the_bits_of_the_whole(tmp_path, monkeypatch, form, rate, channels, size):
    sound = np.random.default_rng(rate).normal(0, 0.1, (2 * rate + 7, channels))
    soundfile.write(tmp_path / "a", sound, rate, format=form)
    whole = soundfile.read(tmp_path / "a", dtype="float32", always_2d=True)[0].T * np.float32(32768)
    whole = whole[0] if channels == 1 else whole.mean(axis=0, dtype=np.float32)
    monkeypatch.setattr(audio, "_BLOCK", size)
    assert np.array_equal(read_audio(tmp_path / "a").samples, resample(whole, rate, RATE))


def test_a_long_file_takes_little_more_than_its_samples(tmp_path):
    """A quarter of an hour of stereo: 58 MB of samples, and the memory of one block."""
    with soundfile.SoundFile(tmp_path / "a", "w", RATE, 2, "PCM_16", format="FLAC") as file:
        for _ in range(15):
            file.write(np.zeros((60 * RATE, 2), np.int16))
    tracemalloc.start()
    samples = read_audio(tmp_path / "a").samples
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 900 * RATE
    assert peak < samples.nbytes + (48 << 20)


def test_commands_run_only_when_allowed(folder, tmp_path):
    command = f"touch '{tmp_path}/ran'; cat '{folder}/a.wav' |"
    with pytest.raises(InputError, match="--allow-pipes true"):
        read_audio(command)
    assert not (tmp_path / "ran").exists()
    assert len(read_audio(command, allow_pipes=True).samples) == 2 * RATE
    assert (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="status 4: no message"):  # of the first of several commands
        read_audio(f"(cat '{folder}/a.wav'; exit 4) | cat |", allow_pipes=True)
    with pytest.raises(InputError, match="status 3: it broke"):
        read_audio("echo it broke >&2; exit 3 |", allow_pipes=True)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFF0])
def test_streamed_wav_has_no_known_length(folder, tmp_path, length):
    content = bytearray((folder / "a.wav").read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = length.to_bytes(4, "little")
    (tmp_path / "a").write_bytes(content)
    assert len(read_audio(tmp_path / "a").samples) == 2 * RATE


def test_a_header_cannot_ask_for_memory(folder, tmp_path):
    """A FLAC that claims 2^36 samples is an error, not 256 GiB."""
    content = bytearray((folder / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    (tmp_path / "a").write_bytes(content)
    try:
        assert len(read_audio(tmp_path / "a").samples) == 2 * RATE
    except InputError as error:
        assert "truncated" in str(error) or "damaged" in str(error)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch(factor):
    faster = change_speed(tone().astype(np.float32), factor)
    assert faster.dtype == np.float32
    assert abs(len(faster) - 2 * RATE / factor) <= 1
    assert abs(pitch(faster) - 440 * factor) < 1


def test_resampling_removes_what_the_new_rate_cannot_hold():
    high = resample(tone(2, 44100, 12000).astype(np.float32), 44100, RATE)
    assert np.abs(high[1000:-1000]).max() < 0.01
