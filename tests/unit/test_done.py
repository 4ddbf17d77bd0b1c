"""Records of finished steps: when they are valid, when they are stale and why."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from utils.jobs import done, fingerprint
from utils.jobs.place import place_above, settle


def call(action, record, *inputs, options=("dim=400",), outputs=None):
    """Run utils.jobs.done as the steps do; return exit status and messages."""
    command = [sys.executable, "-m", "utils.jobs.done", action, str(record), "--step", "x.sh"]
    for option in options:
        command += ["--option", option]
    command += ["--inputs", *map(str, inputs)]
    if outputs is not None:
        command += ["--outputs", *map(str, outputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_an_input_that_changes_while_the_step_runs(tmp_path):
    """Nobody knows which of its states the outputs were made from."""
    source, other, model, record = (tmp_path / name for name in ("in", "other", "model", ".done"))
    source.write_text("a")
    other.write_text("b")
    command = [sys.executable, "-m", "utils.jobs.done", "check", record, "--step", "x.sh", "--inputs", source, other]
    began = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (began.returncode, began.stderr) == (done.AGAIN, "")
    model.write_text("model")
    command[3] = "mark"
    for changed, outputs, status in (("b", [model], 1), ("b", [model, source], 0), ("a", [model], 0)):
        record.unlink(missing_ok=True)
        source.write_text(changed)
        marked = subprocess.run([*command, "--outputs", *outputs, "--began"], input=began.stdout, capture_output=True,
                                text=True, check=False)
        assert (marked.returncode, record.exists()) == (status, status == 0)
        assert (f"{source} changed while x.sh ran; run it again\n" in marked.stderr) == (status == 1)


@pytest.fixture(autouse=True)
def fresh():
    """Clear the cache of `place_above`, which holds within a process of the recipe but not between tests."""
    place_above.cache_clear()


@pytest.fixture
def step(tmp_path):
    """A finished step: an input file, an output folder with a file and its record."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text("a")
    out.mkdir()
    (out / "model").write_text("model")
    assert call("check", out / ".done", source) == (done.AGAIN, "")
    assert call("mark", out / ".done", source)[0] == 0
    return source, out


def test_nothing_changed(step):
    source, out = step
    status, said = call("check", out / ".done", source)
    assert status == 0
    assert "up to date" in said


def test_changed_input(step):
    source, out = step
    source.write_text("b")
    status, said = call("check", out / ".done", source)
    assert status == done.AGAIN
    assert "in changed" in said
    assert not (out / ".done").exists()


def test_changed_option(step):
    source, out = step
    status, said = call("check", out / ".done", source, options=("dim=200",))
    assert status == done.AGAIN
    assert "option dim was '400', is now '200'" in said


def test_lost_or_cut_output(step):
    source, out = step
    (out / "model").write_text("mod")
    assert "is damaged" in call("check", out / ".done", source)[1]
    assert call("mark", out / ".done", source)[0] == 0
    (out / "model").unlink()
    assert "is gone" in call("check", out / ".done", source)[1]


def test_a_change_at_the_start_reaches_the_end(step, tmp_path):
    source, out = step
    end = tmp_path / "end" / ".done"
    assert call("mark", end, out, outputs=())[0] == 0
    assert call("check", end, out)[0] == 0
    source.write_text("b")
    call("mark", out / ".done", source)
    assert call("check", end, out)[0] == done.AGAIN


def test_damaged_record_is_named(step, tmp_path):
    source, out = step
    assert call("mark", tmp_path / "end/.done", out, outputs=())[0] == 0
    (out / ".done").write_text(json.dumps({"digest": 3}))
    assert "damaged record" in call("check", tmp_path / "end/.done", out)[1]  # as the input of another step
    status, said = call("check", out / ".done", source)
    assert status == done.AGAIN
    assert "damaged record" in said


def test_missing_input_is_named(step, tmp_path):
    _, out = step
    status, said = call("check", out / ".done", tmp_path / "nothing")
    assert status == 1
    assert "nothing is missing" in said


def test_what_a_killed_run_left_of_an_output_goes_when_the_step_ends(tmp_path):
    output, left, other = tmp_path / "x.1.ark", tmp_path / ".x.1.ark.abcd_123.tmp", tmp_path / ".y.ark.abcd_123.tmp"
    for path in (output, left, other):
        path.write_text("1")
    done.mark(tmp_path / ".done", done.describe(tmp_path / ".done", "step", {}, []), [output])
    assert not left.exists()
    assert other.exists()  # belongs to a step that may still run


def test_an_output_of_the_same_size_and_other_content_is_noticed(step):
    source, out = step
    (out / "model").write_text("modem")
    assert "is damaged" in call("check", out / ".done", source)[1]


def test_large_outputs_are_compared_by_samples(step, monkeypatch):
    source, out = step
    (out / "model").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(fingerprint, "WHOLE_FILE", 1 << 19)
    monkeypatch.setattr(fingerprint, "SAMPLE", 1 << 10)
    before = fingerprint.of_content(out / "model")
    (out / "model").write_bytes(b"\1" * (1 << 20))
    assert fingerprint.of_content(out / "model") != before
    (out / "model").write_bytes(bytes((1 << 20) - 1) + b"\1")  # the last byte
    assert fingerprint.of_content(out / "model") != before
    (out / "model").write_bytes(bytes(1 << 20))
    assert fingerprint.of_content(out / "model") == before


def test_what_is_made_again_and_differs_reaches_the_end(step, tmp_path):
    source, out = step
    end = tmp_path / "end" / ".done"
    assert call("mark", end, out, outputs=())[0] == 0
    (out / "model").write_text("other")  # the same inputs and options, another result
    assert call("mark", out / ".done", source)[0] == 0
    status, said = call("check", end, out)
    assert status == done.AGAIN
    assert "out changed" in said


def test_audio_replaced_in_place_is_noticed(tmp_path):
    audio, script, record = tmp_path / "a b.wav", tmp_path / "wav.scp", tmp_path / "out/.done"
    audio.write_bytes(b"1234")
    script.write_text(f"utt {audio}\n")
    assert call("mark", record, script, outputs=())[0] == 0
    assert call("check", record, script)[0] == 0
    audio.write_bytes(b"12345")
    assert call("check", record, script)[0] == done.AGAIN
    assert call("mark", record, script, outputs=())[0] == 0
    audio.write_bytes(b"54321")
    os.utime(audio, ns=(1, 1))
    assert call("check", record, script)[0] == done.AGAIN


def test_an_archive_that_a_script_names_is_part_of_it(tmp_path):
    archive, script, record = tmp_path / "x.1.ark", tmp_path / "x.scp", tmp_path / "out/.done"
    archive.write_bytes(b"1234")
    script.write_text(f"utt {archive}:2[0:3]\n")
    assert call("mark", record, script, outputs=())[0] == 0
    archive.write_bytes(b"1235")
    assert call("check", record, script)[0] == done.AGAIN


def test_folders_and_rows_that_are_linked_or_named_without_an_offset(tmp_path):
    folder, lists = tmp_path / "data", tmp_path / "lists"
    folder.mkdir()
    lists.mkdir()
    (lists / "a").write_text("a")
    (lists / "up").symlink_to(folder)  # leads back
    (folder / "trials").symlink_to(lists)
    (tmp_path / "m.mat").write_text("1")
    (folder / "feats.scp").write_text(f"a {tmp_path}/m.mat[0:2]\n")
    seen = {fingerprint.fingerprint(folder)}
    for changed in (lists / "a", tmp_path / "m.mat"):
        changed.write_text("b")
        seen.add(fingerprint.fingerprint(folder))
    assert len(seen) == 3


def test_trial_lists_and_what_is_known_of_speakers_do_not_change_a_data_directory(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "utt2spk").write_text("a-1 a\n")
    seen = {fingerprint.fingerprint(tmp_path)}
    for name in ("spk2gender", "trials/list", "spk2utt"):
        (tmp_path / name).write_text("a f\n")
    assert seen == {fingerprint.fingerprint(tmp_path)}
    for name in ("utt2spk", "segments", "vad.scp"):
        (tmp_path / name).write_text("a-1 b\n")
        seen.add(fingerprint.fingerprint(tmp_path))
    assert len(seen) == 4


def test_the_seconds_of_stopped_runs_add_up_to_the_last_file_of_each(step, tmp_path, monkeypatch):
    source, _ = step
    work, clock = tmp_path / "unfinished", time.time() - 10000

    def written(name, seconds):
        (work / name).write_text("1")
        os.utime(work / name, (clock + seconds, clock + seconds))

    assert call("begin", work, source)[0] == done.AGAIN and not (work / done.SPENT).exists()
    os.utime(work / ".begun", (clock, clock))
    for begins, part, spent in ((500, 60, 60), (1000, 530, 90), (2000, 1000, 90)):  # the last run has written nothing
        written(f"part{part}", part)
        assert call("begin", work, source)[0] == 0
        assert (work / done.SPENT).read_text() == f"{spent}\n"
        os.utime(work / done.SPENT, (clock + begins, clock + begins))


def test_begin_keeps_work_of_the_same_call_alone(step, tmp_path):
    source, _ = step
    work = tmp_path / "unfinished"
    assert call("begin", work, source)[0] == done.AGAIN
    (work / "part").write_text("1")
    assert call("begin", work, source)[0] == 0
    assert (work / "part").exists()
    assert call("begin", work, source, options=("dim=9",))[0] == done.AGAIN
    assert not (work / "part").exists()
    (work / "part").write_text("1")
    source.write_text("other")
    assert call("begin", work, source, options=("dim=9",))[0] == done.AGAIN
    assert not (work / "part").exists()


def once(folder, command):
    words = [ROOT / "utils/once", folder / "marker", folder / "a", folder / "b", "--", "bash", "-c", command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_job_runs_again_where_what_it_made_was_damaged(tmp_path):
    make = f"echo 1 > '{tmp_path}/a'; echo 2 > '{tmp_path}/b'; echo x >> '{tmp_path}/runs'"
    assert once(tmp_path, "exit 7").returncode == 7
    for _ in range(2):
        assert once(tmp_path, make).returncode == 0
    assert (tmp_path / "runs").read_text() == "x\n"
    for damage in (lambda: (tmp_path / "b").write_text("3\n"), (tmp_path / "a").unlink):
        damage()
        (tmp_path / "runs").unlink()
        assert once(tmp_path, make).returncode == 0
        assert (tmp_path / "runs").read_text() == "x\n"
        assert (tmp_path / "b").read_text() == "2\n"
    assert once(tmp_path, "true").stdout.startswith("done before")


@pytest.fixture
def work(tmp_path):
    """A work folder with a script that names an archive in it, and the record of a step."""
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data/x.ark").write_bytes(b"1234")
    (folder / "data/x.scp").write_text(f"a {folder}/data/x.ark:1\nb {tmp_path}/workshop/x.ark:1\n")
    settle(folder)
    option = (f"root={folder}/simulated",)
    assert call("mark", folder / "end/.done", folder / "data/x.scp", options=option, outputs=())[0] == 0
    return folder


@pytest.mark.parametrize("copied", [False, True])
def test_a_work_folder_that_is_moved_or_copied_stays_done(work, tmp_path, copied):
    new = tmp_path / "sub" / "new [1]"
    shutil.copytree(work, new)
    if not copied:
        shutil.rmtree(work)
    option = (f"root={new}/simulated",)
    status, said = call("check", new / "end/.done", new / "data/x.scp", options=option)
    assert status == 1
    assert f"moved or copied from {work}" in said
    for _ in range(2):  # a second call changes nothing
        settle(new)
        assert (new / "data/x.scp").read_text() == f"a {new}/data/x.ark:1\nb {tmp_path}/workshop/x.ark:1\n"
    assert call("check", new / "end/.done", new / "data/x.scp", options=option)[0] == 0
    (new / "data/x.ark").write_bytes(b"4321")
    assert call("check", new / "end/.done", new / "data/x.scp", options=option)[0] == done.AGAIN
    if copied:
        assert call("check", work / "end/.done", work / "data/x.scp", options=(f"root={work}/simulated",))[0] == 0


def test_settling_that_was_killed_goes_on(work):
    inner = work / "inner"  # below the old place, so that its path contains the old path
    shutil.copytree(work, inner)
    (inner / "data/x.scp").write_text(f"a {inner}/data/x.ark:1\n")
    settle(inner)
    assert (inner / "data/x.scp").read_text() == f"a {inner}/data/x.ark:1\n"
