"""Speakers in both training and test: found under every name, refused above the allowed share."""

import sys
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.kaldi import shared_speakers
from utils.kaldi.data_dir import DataDir
from utils.kaldi.perturb_speed import perturbed, read_speeds
from utils.kaldi.shared_speakers import check_trials, original, refuse_shared


def test_a_copy_has_the_voice_of_its_original() -> None:
    same = ["id1", "sp1-f", "sp0.9-", "special", "sp0.9", "spx0.9-a", "sp1x-a"]
    assert [original(name) for name in same] == same
    copies = ["sp0.9-id1", "sp1.1-id1", "sp1x0.9-id1", "sp1.1x0.9-id1", "sp0.9x2-id1", "sp2.0-id1"]
    assert {original(name) for name in copies} == {"id1"} and original("sp1.1-a-b") == "a-b"


@pytest.mark.parametrize("speeds", ["0.9,1.1,1x0.9", "1.1x0.9,2.0,3x1"])
def test_each_copy_that_can_be_made_is_known_as_one(speeds: str) -> None:
    data = DataDir(["a-1", "b-1"], {"utt2spk": ["a", "b"], "wav.scp": ["a.wav", "b.wav"]})
    copies = perturbed(data, read_speeds(speeds))
    assert len(set(copies.speakers)) == 6 and {original(name) for name in copies.speakers} == {"a", "b"}


def test_a_speed_whose_copies_would_pass_for_other_people_is_refused() -> None:
    with pytest.raises(InputError, match="--speeds 0.9,2: write '2' with a decimal point, such as 2.0"):
        read_speeds("0.9,2")


def test_the_first_five_are_named_above_the_share() -> None:
    trained, others = [f"sp0.9-s{n}" for n in range(8)], [f"s{n}" for n in range(16)]
    with pytest.raises(InputError, match=r"x: 8 of its 16 speakers are also in the training data: s0, s1, s2, s3, s4 "
                       r"and 3 more; remove .* or allow it with --max-shared-speakers 0.5$"):
        refuse_shared(trained, others, "x", 0.49)
    refuse_shared(trained, others, "x", 0.5)
    refuse_shared([], others, "x", 0)
    with pytest.raises(InputError, match="1 of its 3 .*--max-shared-speakers 0.334"):
        refuse_shared(["a"], ["a", "b", "c"], "x", 0)
    refuse_shared(["a"], ["a", "b", "c"], "x", 0.334)


def test_validation_on_trained_speakers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, speakers in (("train", ["a", "sp0.9-b"]), ("same", ["b", "c"]), ("other", ["c", "d"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "utt2spk").write_text("".join(f"{one}-1 {one}\n" for one in speakers))
    for words, refused in ((["same"], True), (["other"], False), (["--max-shared-speakers", "0.5", "same"], False)):
        monkeypatch.setattr(sys, "argv", ["x", *words[:-1], str(tmp_path / "train"), str(tmp_path / words[-1])])
        if refused:
            with pytest.raises(InputError, match="same: 1 of its 2 speakers are also in the training data: b;"):
                shared_speakers.main()
        else:
            shared_speakers.main()


def test_speakers_of_a_list_without_utt2spk_are_prefixes_of_ids(tmp_path: Path) -> None:
    ids = ["a-b-c-1", "a-1", "abc-1", "sp0.9-d-1", "e-1"]
    for trained, found in (({"a-b"}, "1 of its 5 .*: a-b;"), ({"a"}, "1 of its 4 .*: a;"),
                           ({"d", "e", "x"}, "2 of its 4 .*: d, e;")):
        with pytest.raises(InputError, match=found):
            check_trials(tmp_path / "list", ids, trained, 0)
    check_trials(tmp_path / "list", ids, {"ab", "b", "1", "a-b-c-1"}, 0)
