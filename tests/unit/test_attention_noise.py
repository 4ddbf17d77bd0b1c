"""Attention against noise: shares on overlaid frames against values computed by hand, levels, and the program."""

import subprocess

import numpy as np
import pytest
import soundfile
import torch
from made_up_systems import write_untrained
from torch import nn

from nnet.attention import Attention
from nnet.embed import load
from steps.report.attention_noise import (
    COLUMNS,
    NONE,
    Overlay,
    Shares,
    Sounds,
    measure,
    middle_third,
    shares_of,
    speech_power,
    summarise,
)
from tests.conftest import ROOT
from tests.in_process import call
from utils.kaldi.data_dir import read_data_dir

RATE = 16000


def write_tones(folder, speakers=("a", "b"), seconds=3.0):
    """Two utterances of each speaker: a steady tone, whose power is the same in every frame of 25 ms, as is that of a
    sum of two."""
    folder.mkdir()
    names = [f"{speaker}-{number}" for speaker in speakers for number in range(2)]
    for place, name in enumerate(names):
        time = np.arange(round(seconds * RATE)) / RATE
        soundfile.write(folder / f"{name}.wav", 0.1 * (place + 1) * np.sin(2 * np.pi * (200 + 40 * place) * time), RATE)
    for table, lines in {"wav.scp": [f"{name} {folder}/{name}.wav" for name in names],
                         "utt2spk": [f"{name} {name[0]}" for name in names],
                         "spk2utt": [f"{speaker} {speaker}-0 {speaker}-1" for speaker in speakers]}.items():
        (folder / table).write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def tones(tmp_path):
    return write_tones(tmp_path / "tones")


def write_attentive(folder, heads=2, **changes):
    return write_untrained(folder, pooling={"type": "multi_head", "heads": heads}, **changes)


@pytest.mark.parametrize(("frames", "weights", "share", "uniform"), [
    ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0.2, 0.5, 0.3], 0.5, 1 / 3),
    ([0, 0, 0, 1, 1, 1], [0.2, 0.8], 1 / 3, 1 / 3),  # a third of either encoder's frame
    ([0, 0, 0, 0, 1, 1], [0.2, 0.8], 0.1, 0.25),  # frames 2 and 3: half of the first
    ([0, -1, 1, -1, 2, 2], [0.2, 0.5, 0.3], 0.5, 1 / 3),  # frame 3 was left out, frame 2 is all of the second
    ([0, 0, -1, -1, 1, 1], [0.2, 0.8], 0.0, 0.0)])
def test_the_share_of_frames_by_hand(frames, weights, share, uniform):
    both = np.array([weights, weights[::-1]]).T  # two heads
    found = shares_of(Attention(both, np.array(frames)))
    assert found.heads[0] == pytest.approx(share) and found.uniform == pytest.approx(uniform)
    mirrored = shares_of(Attention(both[:, ::-1], np.array(frames)))
    assert found.heads[1] == pytest.approx(mirrored.heads[0])


class Nothing(nn.Module):
    """An encoder that returns what it gets."""

    receptive_field = 1

    def forward(self, x, lengths):
        return x, lengths


class Energy(nn.Module):
    """A pooling with a head whose weights are the frames' energies, and one with their inverse.

    The first value of a frame is its logarithmic energy.
    """

    def weights(self, h, lengths):
        return torch.softmax(torch.stack([h[..., 0], -h[..., 0]], dim=2), dim=1)


def energies(samples):
    """Return the energy of every frame of 25 ms every 10 ms, without its mean, as Kaldi defines it: in a plain loop."""
    mirrored, found = np.pad(samples.astype(np.float64), 400, mode="symmetric"), []
    for start in range(400 + 80 - 200, 400 + len(samples) - 120, 160):
        frame = mirrored[start:start + 400]
        found.append(np.sum((frame - frame.mean()) ** 2))
    return np.array(found)


def test_weights_that_follow_the_energy_have_the_shares_of_the_energy(tones, tmp_path):
    """A tone of power 1; in the middle third it has 1 + 1/10 with another 10 dB below it, 2 with one at its level, and
    1e-4 when muted. Noise has power below the frames' frequencies: its energy is counted in the samples."""
    model = load(write_attentive(tmp_path / "exp", features="mfcc24", frontend={"cmn": "none"}))
    model.network.encoder, model.network.pooling = Nothing(), Energy()
    powers = {NONE: 1, Overlay("voice", 10.0): 1.1, Overlay("voice", 0.0): 2, Overlay("noise", 0.0): None,
              Overlay("silence"): 1e-4}
    sounds = Sounds(read_data_dir(tones), (), RATE, 1)
    found, left_out = measure({"energy": model}, sounds, range(4), list(powers))
    assert not left_out
    for row in range(4):
        for overlay, middle in powers.items():
            heads, uniform = found["energy"][overlay][row]
            assert uniform == pytest.approx(1 / 3, abs=1e-9)
            if middle is not None:
                wanted = middle / (2 + middle), 1 / middle / (2 + 1 / middle)
                assert heads == pytest.approx(wanted, abs=0.01 if middle >= 1 else 0.03), overlay
            of_frames = energies(sounds.overlaid(sounds.samples(row), row, overlay))
            for head, weights in zip(heads, (of_frames, 1 / of_frames), strict=True):
                assert head == pytest.approx(weights[100:200].sum() / weights.sum(), abs=1e-4), overlay
    rows = {row.overlay: row for row in summarise(found, 1)}
    loud = rows[Overlay("voice", 0.0)]
    assert loud.share[0] == pytest.approx((1 / 2 + 1 / 5) / 2, abs=0.01)
    assert loud.before == pytest.approx(1 / 3, abs=0.01)
    assert loud.change[0] == pytest.approx(loud.share[0] - loud.before)
    assert loud.heads == pytest.approx((1 / 5, 1 / 2), abs=0.01)


def test_intervals_are_those_of_means_over_drawn_utterances():
    """Nine shares of 0.2 and one of 0.5: it is among ten draws c times, Binomial(10, 0.1), 0 to 3 in 95 %."""
    shares = {NONE: [Shares(np.full(3, 0.3), 1 / 3)] * 10,
              Overlay("silence"): [Shares(np.full(3, value), 1 / 3) for value in (*[0.2] * 9, 0.5)]}
    none, silence = summarise({"x": shares}, 1)
    assert none.share == pytest.approx((0.3, 0.3, 0.3)) and none.change == pytest.approx((0, 0, 0))
    assert silence.share == pytest.approx((0.23, 0.2, 0.29)) and silence.change == pytest.approx((-0.07, -0.1, -0.01))


@pytest.mark.parametrize("overlay", [Overlay("noise", 10.0), Overlay("voice", 5.0), Overlay("music", 0.0)])
def test_levels_of_overlays_are_those_below_the_speech(tones, tmp_path, overlay):
    """Only the middle third changes; the same sound for every ratio; the speech's pauses do not count."""
    hum = 0.2 * np.sin(np.arange(9000) / 5)
    soundfile.write(tmp_path / "music.wav", hum, RATE)
    sounds = Sounds(read_data_dir(tones), [str(tmp_path / "music.wav")], RATE, 1)
    speech = sounds.samples(0)
    quiet = np.concatenate([speech, np.zeros(3 * RATE, np.float32)])  # half of it is a pause
    assert speech_power(quiet, RATE) == pytest.approx(speech_power(speech, RATE), rel=0.02)
    added = sounds.overlaid(speech, 0, overlay) - speech
    start, stop = middle_third(len(speech))
    assert not added[:start].any() and not added[stop:].any()
    found = 10 * np.log10(np.mean(np.square(speech)) / np.mean(np.square(added[start:stop])))
    assert found == pytest.approx(overlay.snr_db, abs=0.2)
    louder = sounds.overlaid(speech, 0, Overlay(overlay.kind, overlay.snr_db - 20)) - speech
    np.testing.assert_allclose(louder, 10 * added, atol=2)
    if overlay.kind == "voice":  # of b, whose tones have 280 and 320 Hz, a's 200 and 240 Hz
        peak = np.argmax(np.abs(np.fft.rfft(added[start:stop]))) * RATE / (stop - start)
        assert round(peak / 40) in (7, 8)


def table(folder):
    header, *lines = (folder / "attention_noise.tsv").read_text().splitlines()
    assert header.split("\t") == list(COLUMNS)
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


def test_the_program_writes_a_line_per_system_and_overlay(tones, tmp_path):
    """Two random networks, one of them without unvoiced frames; an utterance that is too short is left out."""
    soundfile.write(tones / "b-1.wav", 0.1 * np.sin(np.arange(1600)), RATE)
    music = tmp_path / "musan/music/genre"
    music.mkdir(parents=True)
    soundfile.write(music / "one.wav", 0.2 * np.sin(np.arange(9000) / 5), RATE)
    names = [str(write_attentive(tmp_path / name, heads)) for name, heads in (("one", 1), ("two", 4))]
    done = call("steps.report.attention_noise", "--snrs", "10 -5", "--musan-root", tmp_path / "musan", tones,
                tmp_path / "out", *names)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out")
    overlays = [(row["overlay"], row["snr_db"]) for row in rows if row["system"] == "one"]
    assert overlays == [("none", "-"), *((kind, snr) for kind in ("noise", "voice", "music") for snr in ("10", "-5")),
                        ("silence", "-")]
    assert [row["system"] for row in rows] == ["one"] * 8 + ["two"] * 8
    for row in rows:
        low, share, high = (float(row[name]) for name in ("share_low", "share", "share_high"))
        assert row["utterances"] == "3" and 0 < low <= share <= high < 1
        assert float(row["uniform"]) == pytest.approx(1 / 3, abs=0.01)
        assert float(row["head_min"]) <= share <= float(row["head_max"])
        assert float(row["change"]) == pytest.approx(share - float(row["before"]), abs=2e-4)
    assert "left out, silent or too short: 1 of 4 utterances, such as b-1" in done.stdout
    assert "two, voice -5 dB: " in done.stdout
    for kind, head in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert (tmp_path / f"out/attention_noise.{kind}").read_bytes().startswith(head)


def test_what_cannot_be_measured_is_refused(tones, tmp_path):
    exp, flat = write_attentive(tmp_path / "exp"), write_untrained(tmp_path / "flat")
    short = write_tones(tmp_path / "short", seconds=0.1)
    single = write_tones(tmp_path / "single", speakers=("a",))
    copies = write_tones(tmp_path / "copies")
    (copies / "utt2speed").write_text("".join(f"{name} 0.9\n" for name in read_data_dir(copies).ids))
    pipes = write_tones(tmp_path / "pipes")
    (pipes / "wav.scp").write_text("".join(f"{name} cat x |\n" for name in read_data_dir(copies).ids))
    for words, message in (
            ((tones, exp, flat), f"{flat} has no attention weights; name a network whose pooling has: multi_head, "),
            (("--snrs", "loud", tones, exp), "--snrs is 'loud', wanted numbers in dB"),
            (("--utterances", "0", tones, exp), "--utterances is 0, wanted 1 or more"),
            (("--musan-root", tones, tones, exp), f"no music/**/*.wav in {tones}"),
            ((short, exp), "all 4 utterances are silent or have too few frames for an encoder, such as a-0"),
            ((single, exp), "has one speaker"), ((copies, exp), "has utt2speed"), ((pipes, exp), "names commands")):
        place = len(words) - sum(word in (exp, flat) for word in words)
        done = call("steps.report.attention_noise", *words[:place], tmp_path / "out", *words[place:])
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_step_does_its_work_once(tones, tmp_path):
    words = ["bash", ROOT / "steps/attention_noise.sh", "--utterances", "2",
             f"{write_attentive(tmp_path / 'exp')} {write_attentive(tmp_path / 'other', 4)}", tones, tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "other, silence: " in done.stdout
    assert {row["system"]: row["utterances"] for row in table(tmp_path / "out")} == {"exp": "2", "other": "2"}
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "up to date" in again.stderr and not again.stdout
