"""Joined recordings: who is joined with whom, which pairs are trials, and the levels of speech, pauses and noise."""

from itertools import combinations

import numpy as np
import pytest
import soundfile

from local.join_utterances import Joined, choose, draw_trials, groups_of, join, session_of
from tests.in_process import call
from utils.errors import InputError
from utils.kaldi.data_dir import DataDir, read_data_dir
from utils.kaldi.trials import check_trials

RATE = 16000


def ids(speaker, *counts):
    """Return the ids of a speaker with this many utterances per session."""
    return [f"{speaker}-v-{session}-{number:05}" for session, count in enumerate(counts) for number in range(count)]


def test_a_session_is_what_lies_between_speaker_and_number():
    assert session_of("id10270-x6u-qmx31kE-00001", "id10270") == "x6u-qmx31kE"
    assert session_of("id10270-00001", "id10270") == ""
    assert session_of("strange", "id10270") == ""


@pytest.mark.parametrize(("counts", "groups", "sessions"), [
    ((5, 5, 5, 5), 6, 3), ((7, 7, 1, 3, 3), 7, 3), ((4, 1, 1), 2, 2), ((6,), 2, 1), ((2,), 0, 3)])
def test_groups_are_disjoint_and_of_as_many_sessions_as_possible(counts, groups, sessions):
    """(4, 1, 1): one group of three sessions would leave three utterances of one, so that two suffice."""
    for draw in range(5):
        utterances = ids("s", *counts)
        found = groups_of(utterances, "s", 3, np.random.default_rng(draw))
        joined = [name for group in found for name in group]
        assert len(found) == groups and len(set(joined)) == len(joined) and {*joined} <= {*utterances}
        numbers = [len({session_of(name, "s") for name in group}) for group in found]
        assert numbers == [sessions] * groups or (counts == (4, 1, 1) and sorted(numbers) == [1, 3])


def test_further_sets_join_each_utterance_with_others():
    """18 utterances make 6 recordings; for 7 to 12, each of them is in two."""
    data = DataDir(ids("a", 6, 6, 6) + ids("b", 2), {"utt2spk": ["a"] * 18 + ["b"] * 2})
    assert len(choose(data, 3, 6, seed=1)) == 6
    found = choose(data, 3, 7, seed=1)
    assert [one.id for one in found] == [f"a-joined-{number:05}" for number in range(1, 13)]
    assert sorted(name for one in found for name in one.utterances) == sorted(2 * data.ids[:18])
    assert found == choose(data, 3, 12, seed=1) != choose(data, 3, 12, seed=2)
    whole = DataDir(ids("a", 3), {"utt2spk": ["a"] * 3})
    assert len(choose(whole, 3, 5, seed=1)) == 1
    few = DataDir(ids("a", 2, 2), {"utt2spk": ["a"] * 4})
    assert len(choose(few, 2, 50, seed=1)) == 4  # of different sessions there are four pairs
    assert len(choose(few, 3, 50, seed=1)) == 1  # any two of three would share utterances


def recordings(*counts):
    """Return this many recordings of each speaker; recording n shares an utterance with recording n + 1."""
    return [Joined(f"s{speaker}-joined-{number:05}", f"s{speaker}", (f"{speaker} {number}", f"{speaker} {number + 1}"))
            for speaker, count in enumerate(counts) for number in range(count)]


@pytest.mark.parametrize("counts", [(4, 4, 3), (9, 1), (5, 3, 1, 1, 7)])
def test_trials_are_all_targets_that_share_no_utterance_and_as_many_nontargets(counts):
    made = recordings(*counts)
    speaker = {one.id: one.speaker for one in made}
    of = {one.id: {*one.utterances} for one in made}
    trials = [line.split() for line in draw_trials(made, 1)]
    pairs = {label: [(a, b) for a, b, word in trials if word == label] for label in ("target", "nontarget")}
    wanted = [(a, b) for a, b in combinations(sorted(of), 2) if speaker[a] == speaker[b] and not of[a] & of[b]]
    assert pairs["target"] == wanted
    others = {(a, b) for a, b in combinations(sorted(of), 2) if speaker[a] != speaker[b]}
    assert {*pairs["nontarget"]} <= others and len({*pairs["nontarget"]}) == len(pairs["nontarget"])
    assert len(pairs["nontarget"]) == min(len(wanted), len(others))
    assert draw_trials(made, 1) == draw_trials(made, 1)
    assert (draw_trials(made, 1) == draw_trials(made, 2)) == (len(others) <= len(wanted))


@pytest.mark.parametrize(("counts", "reason"), [((9,), "21|28 target and 0 non-target"), ((2, 2), "0 target and 4")])
def test_no_trials_is_an_error(counts, reason):
    with pytest.raises(InputError, match=reason):
        draw_trials(recordings(*counts), 1)


def test_levels_of_speech_pauses_and_noise():
    """Two tones whose powers are 1e6 / 2 and 4e6 / 2, brought to their mean; noise 10 dB below it."""
    seconds = np.arange(2 * RATE) / RATE
    tones = [np.float32(level * np.sin(2 * np.pi * pitch * seconds)) for level, pitch in ((1000, 300), (2000, 500))]
    mixed = join(tones, (0.5, 0.7), 10, np.random.default_rng(1))
    pause = len(mixed) - 4 * RATE
    assert 0.5 * RATE <= pause <= 0.7 * RATE
    level = 1e6 * (1 + 4) / 4
    clean = np.concatenate([np.sqrt(level / np.mean(np.square(tones[0]))) * tones[0], np.zeros(pause),
                            np.sqrt(level / np.mean(np.square(tones[1]))) * tones[1]])
    noise = mixed - clean
    assert 10 * np.log10(level / np.mean(np.square(noise))) == pytest.approx(10, abs=0.01)
    for part in (noise[:2 * RATE], noise[2 * RATE:-2 * RATE], noise[-2 * RATE:]):  # its level varies within seconds
        assert 2 < 10 * np.log10(level / np.mean(np.square(part))) < 18
    silent = join([np.zeros(RATE, np.float32), tones[0]], (0.5, 0.5), 10, np.random.default_rng(1))
    assert np.isfinite(silent).all()
    assert np.abs(join([tones[0], 30 * tones[1]], (0, 0), 0, np.random.default_rng(1))).max() == pytest.approx(32000)


@pytest.fixture
def data(tmp_path):
    """A data directory of three speakers with seven utterances of 0.3 s and more."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    names = [name for speaker in ("id1", "id2", "id3") for name in ids(speaker, 3, 2, 2)]
    for place, name in enumerate(names):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.normal(size=4800 + 160 * place), RATE)
    tables = {"wav.scp": [f"{name} {folder}/{name}.wav" for name in names],
              "utt2spk": [f"{name} {name[:3]}" for name in names],
              "spk2utt": [" ".join([f"id{place + 1}", *names[7 * place:7 * place + 7]]) for place in range(3)],
              "spk2gender": ["id1 f", "id2 m", "id3 f"]}
    for table, lines in tables.items():
        (folder / table).write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_the_program_makes_a_data_directory_and_the_same_one_again(data, tmp_path):
    out = tmp_path / "out"
    words = ("--pauses", "0.1,0.2", "--recordings", 4, data)
    for folder in (out, tmp_path / "again"):
        done = call("local.join_utterances", *words, folder)
        assert done.returncode == 0, done.stderr
    joined = read_data_dir(out)
    checked = check_trials(out / "trials/joined3", joined.ids)
    parts = {name: rest for name, *rest in map(str.split, (out / "joined_from").read_text().splitlines())}
    assert list(parts) == joined.ids and checked.trials and not checked.repeated
    for first, second, label in map(str.split, (out / "trials/joined3").read_text().splitlines()):
        assert not {*parts[first]} & {*parts[second]}
        assert (first[:3] == second[:3]) == (label == "target")
    lengths = {name: len(soundfile.read(data / f"{name}.wav")[0]) for name in read_data_dir(data).ids}
    for name, path in zip(joined.ids, joined.columns["wav.scp"], strict=True):
        samples, rate = soundfile.read(path)
        assert rate == RATE and 0.2 <= len(samples) / RATE - sum(lengths[part] for part in parts[name]) / RATE <= 0.4
        assert soundfile.read(path.replace("/out/", "/again/"))[0].tolist() == samples.tolist()
        assert {part[:3] for part in parts[name]} == {name[:3]}
    assert (out / "spk2gender").read_text() == (data / "spk2gender").read_text()
    assert (out / "trials/joined3").read_bytes() == (tmp_path / "again/trials/joined3").read_bytes()


@pytest.mark.parametrize(("words", "message"), [
    (("--utterances", 1), "1 utterances per recording, 18 recordings per speaker: wanted 2 or more of each"),
    (("--utterances", 4), "3 joined recordings of 3 speakers give 0 target and 3 non-target trials"),
    (("--pauses", "2,1"), "--pauses is '2,1', wanted the shortest and the longest in seconds"),
    (("--pauses", "long"), "--pauses is 'long'")])
def test_bad_options_are_refused_before_anything_is_written(data, tmp_path, words, message):
    done = call("local.join_utterances", *words, data, tmp_path / "out")
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "out").exists()


def test_copies_and_damaged_audio_are_refused(data, tmp_path):
    broken = sorted(data.glob("*.wav"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    done = call("local.join_utterances", "--recordings", 6, data, tmp_path / "out")
    assert done.returncode == 1 and str(broken) in done.stderr
    assert not (tmp_path / "out/wav.scp").exists() and not [*(tmp_path / "out").glob("**/*.flac")]
    (data / "utt2speed").write_text("".join(f"{name} 0.9\n" for name in read_data_dir(data).ids))
    done = call("local.join_utterances", data, tmp_path / "out")
    assert done.returncode == 1 and "has utt2speed; name the raw data directory" in done.stderr


def test_adding_keeps_lists_and_refuses_what_both_have(data, tmp_path):
    (data / "trials").mkdir()
    own = f"{ids('id1', 1)[0]} {ids('id2', 1)[0]} nontarget\n"
    (data / "trials/own").write_text(own)
    assert call("local.join_utterances", data, tmp_path / "more").returncode == 0
    joined = len(read_data_dir(tmp_path / "more").ids)
    done = call("local.add_utterances", data, tmp_path / "more")
    assert done.returncode == 0, done.stderr
    assert len(read_data_dir(data).ids) == 21 + joined
    assert (data / "trials/own").read_text() == own
    assert (data / "trials/joined3").read_text() == (tmp_path / "more/trials/joined3").read_text()
    assert (data / "spk2gender").is_file()
    done = call("local.add_utterances", data, tmp_path / "more")
    assert done.returncode == 1 and "both have a list joined3" in done.stderr
