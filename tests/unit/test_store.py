"""The store of enrolled speakers: damage, kills, and writers at the same time."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from steps.use.store import Speaker, Store, read_speaker
from utils.errors import InputError


def test_names_of_all_languages_are_kept(tmp_path):
    for name in ("Ada Lovelace", "Łukasz", "小明", "a.b"):
        Store(tmp_path, "m").write(speaker_of(name, 1), replace=False)
    assert {one.name for one in Store(tmp_path, "m").read()} == {"Ada Lovelace", "Łukasz", "小明", "a.b"}


def speaker_of(name, value, dim=7):
    return Speaker(name, "m", ("a.wav", "b.wav"), (3.0, 4.5), np.full((2, dim), value, np.float32) / 3)


def test_what_is_enrolled_is_read_back_and_replaced_only_when_told(tmp_path):
    store = Store(tmp_path / "new/store", "m")
    store.write(speaker_of("ada", 1), replace=False)
    with pytest.raises(InputError, match="ada is enrolled already .*; use another name, or --replace"):
        store.write(speaker_of("ada", 2), replace=False)
    found, = store.read()
    assert found[:4] == speaker_of("ada", 1)[:4]
    assert found.vectors.dtype == np.float32 and (found.vectors == speaker_of("ada", 1).vectors).all()
    store.write(speaker_of("ada", 2), replace=True)
    assert (store.read()[0].vectors == speaker_of("ada", 2).vectors).all()


@pytest.mark.parametrize("harm", [b"", b"{", b"[]", b"\xff", b"null", b"{}", b"[" * 99999, "flip", "cut", "version",
                                  "name"])
def test_a_damaged_file_costs_only_its_own_speaker(tmp_path, capsys, harm):
    store = Store(tmp_path, "m")
    for name in ("ada", "bob"):
        store.write(speaker_of(name, 1), replace=False)
    path = tmp_path / "ada.json"
    text = path.read_bytes()
    path.write_bytes({"flip": text.replace(b"0.33", b"0.34", 1), "cut": text[:-50],
                      "version": text.replace(b'"version": 1', b'"version": 2'),
                      "name": text.replace(b'"ada"', b'"eve"')}.get(harm, harm))
    assert [one.name for one in store.read()] == ["bob"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"warning: {path}" in said and "enrol this speaker again with --replace" in said
    store.write(speaker_of("ada", 2), replace=True)
    assert len(store.read()) == 2


def test_a_file_that_was_renamed_and_a_store_without_speakers_are_said(tmp_path, capsys):
    store = Store(tmp_path, "m")
    with pytest.raises(InputError, match="no enrolled speaker; enrol one with utils/enrol"):
        store.read()
    store.write(speaker_of("ada", 1), replace=False)
    (tmp_path / "ada.json").rename(tmp_path / "eve.json")
    with pytest.raises(InputError, match="no enrolled speaker"):
        store.read()
    assert "eve.json: holds the speaker ada; give the file its name again" in capsys.readouterr().err
    (tmp_path / "eve.json").rename(tmp_path / "ada.json")
    with pytest.raises(InputError, match="ada were enrolled with another model"):
        Store(tmp_path, "other").read()


def write_many(folder, process, count):
    store = Store(folder, "m")
    for number in range(count):
        store.write(speaker_of(f"p{process}-{number % 5}", number), replace=True)
        store.write(speaker_of("both", 100 * process + number), replace=True)


def test_two_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, process, 20)) for process in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = {one.name: one for one in Store(tmp_path, "m").read()}
    assert set(found) == {"both", *(f"p{process}-{number}" for process in range(2) for number in range(5))}
    assert float(found["both"].vectors[0, 0]) == pytest.approx(19 / 3) or float(
        found["both"].vectors[0, 0]) == pytest.approx(119 / 3)


def claim(folder, process, start, won):
    start.wait()
    try:
        Store(folder, "m").write(speaker_of("same", process), replace=False)
        won[process] = 1
    except InputError:
        won[process] = 2


def test_of_two_that_enrol_one_name_one_wins_and_one_is_told(tmp_path):
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        start, won = context.Event(), context.Array("i", 2)
        writers = [context.Process(target=claim, args=(tmp_path / str(turn), one, start, won)) for one in range(2)]
        for writer in writers:
            writer.start()
        start.set()
        for writer in writers:
            writer.join()
        assert sorted(won) == [1, 2]
        assert float(Store(tmp_path / str(turn), "m").read()[0].vectors[0, 0]) == pytest.approx(list(won).index(1) / 3)


def test_kill_9_leaves_the_old_file_or_the_new_one_and_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    store = Store(tmp_path, "m")
    store.write(speaker_of("both", 0), replace=False)
    for turn in range(8):
        writer = context.Process(target=write_many, args=(tmp_path, 0, 10**6))
        writer.start()
        time.sleep(0.02 + 0.013 * turn)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for one in tmp_path.glob("*.json"):
            read_speaker(one)  # whole, with its checksum
        store.write(speaker_of("after", turn), replace=True)  # the lock is free
    assert {"both", "after"} <= {one.name for one in store.read()}
