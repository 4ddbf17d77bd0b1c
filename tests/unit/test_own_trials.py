"""Trials that are drawn for a corpus without lists, and the sizes that suit its training data."""

from local.auto_scale import pick
from local.own_trials import Heard, draw_trials, fair_cap, group_of


def test_trials_are_balanced_fair_and_of_different_sessions():
    heard = [Heard(f"{speaker}{number:03}", f"{speaker}-{number:03}", speaker,
                   f"s{number % 3}" if speaker != "d" else "", number // 2 + 1000 * ord(speaker))
             for speaker, count in (("a", 200), ("b", 8), ("c", 4), ("d", 4)) for number in range(count)]
    session, copy = {one.id: one.session for one in heard}, {one.id: one.copy for one in heard}
    drawn = draw_trials(heard, 1)
    targets = [trial for trial in drawn if trial[2] == "target"]
    assert 2 * len(targets) == len(drawn)
    assert drawn == sorted(drawn) == draw_trials(heard[::-1], 1) != draw_trials(heard, 2)
    assert len({frozenset(trial[:2]) for trial in drawn}) == len(drawn)
    assert all((first[0] == second[0]) == (label == "target") for first, second, label in drawn)
    assert all(copy[first] != copy[second] for first, second, _ in targets)
    assert all(session[first] != session[second] for first, second, _ in targets if first[0] != "d")
    assert any(first[0] == "d" for first, _, _ in targets)
    hard = draw_trials(heard, 1, {"a": "f", "b": "f", "c": "m", "d": "m"})
    assert {frozenset((first[0], second[0])) for first, second, label in hard if label == "nontarget"} == {
        frozenset("ab"), frozenset("cd")}
    assert fair_cap([10, 3, 200], 100) == 87 and fair_cap([10, 3], 100) == 10 and fair_cap([5, 5, 5], 9) == 3


def test_columns_of_the_hard_list():
    more = {str(number): {"gender": "fm"[number % 2], "city": "AB"[number % 3 > 0], "name": str(number)}
            for number in range(9)}
    assert group_of(more, [])[0] == ["gender"] and group_of(more, [])[1]["1"] == "m"
    assert group_of(more, ["gender", "city"])[1]["1"] == "m|b"
    without = {speaker: {"name": cells["name"], "city": cells["city"]} for speaker, cells in more.items()}
    assert group_of(without, [])[0] == ["city"] and group_of({"a": {}, "b": {}}, []) == ([], {})


def test_sizes_grow_with_the_data():
    assert pick(110, 2.4, 2200) == ("mini", "ubm.num_gaussians=128 ubm.num_frames=307200 extractor.dim=100 "
                                            "train.epochs=12", 11)
    assert pick(10, 0.05, 60)[1] == "ubm.num_gaussians=32 ubm.num_frames=300000 extractor.dim=40 train.epochs=60"
    assert pick(1000, 50, 50000)[1].startswith("ubm.num_gaussians=2048 ") and pick(1000, 50, 50000)[1].endswith("=10")
    assert pick(1200, 340, 148000) == ("full", "", 40)
