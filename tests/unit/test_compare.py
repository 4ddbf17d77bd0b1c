"""The table over several runs: means and ranges, and bad input."""

import json
from pathlib import Path

import pytest

from steps.report.compare import read_rates, table
from steps.report.results import COLUMNS
from utils.errors import InputError


def results(path: Path, *rows: tuple[str, ...]) -> Path:
    lines = [dict(zip(("system", "backend", "list", "eer", "scale"), row, strict=False)) for row in rows]
    table = [COLUMNS, *([line.get(name, "0") for name in COLUMNS] for line in lines)]
    path.write_text("".join("\t".join(row) + "\n" for row in table))
    return path


def test_means_ranges_and_order(tmp_path):
    runs = [results(tmp_path / "1", ("a", "cosine", "o", "6.0"), ("b", "cosine", "o", "4.0"),
                    ("c", "plda", "o", "1.0")),
            results(tmp_path / "2", ("a", "cosine", "o", "3.0"), ("b", "cosine", "o", "4.5"))]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(read_rates(runs), []).splitlines()]
    assert lines[0] == ["system", "runs", "cosine, o", "plda, o"]
    assert lines[2:] == [["b", "2", "4.25 (4.00-4.50)", ""], ["a", "2", "4.50 (3.00-6.00)", ""], ["c", "1", "", "1.00"]]
    chosen = table(read_rates(runs), ["c", "a"]).splitlines()
    assert [line.split()[1] for line in chosen[2:]] == ["c", "a"]


def test_the_held_out_speakers_come_first(tmp_path):
    for run, eer in (("1", 2.0), ("2", 4.0)):
        (tmp_path / run / "a").mkdir(parents=True)
        found = {"plda": {"eer": eer}, "cosine": {"eer": 9 * eer}}
        (tmp_path / run / "a/calibration.json").write_text(json.dumps(found))
    runs = [results(tmp_path / run / "results.tsv", ("a", "cosine", "a_list", "6.0"), ("b", "cosine", "a_list", "4.0"))
            for run in ("1", "2")]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(read_rates(runs), []).splitlines()]
    assert lines[0] == ["system", "runs", "cosine, held out", "cosine, a_list", "plda, held out"]
    assert lines[2:] == [["a", "2", "27.00 (18.00-36.00)", "6.00 (6.00-6.00)", "3.00 (2.00-4.00)"],
                         ["b", "2", "", "4.00 (4.00-4.00)", ""]]
    (tmp_path / "2/a/calibration.json").write_text('{"plda": {}}')
    with pytest.raises(InputError, match="2/a/calibration.json: damaged: 'eer'; make it again with steps/train_calib"):
        read_rates(runs)


def test_bad_input_is_named(tmp_path):
    good = results(tmp_path / "good", ("a", "cosine", "o", "6.0"))
    with pytest.raises(InputError, match="no file .*none"):
        read_rates([tmp_path / "none"])
    with pytest.raises(InputError, match="named twice"):
        read_rates([good, good])
    with pytest.raises(InputError, match="the eer of a is 'x'"):
        read_rates([results(tmp_path / "bad", ("a", "cosine", "o", "x"))])
    full = results(tmp_path / "full", ("a", "cosine", "o", "6.0", "full"))
    with pytest.raises(InputError, match="a is of scale 0 in .*/good and full in .*/full; compare runs of one scale"):
        read_rates([good, full])
    (tmp_path / "cut").write_text(good.read_text()[:-9])
    with pytest.raises(InputError, match=f"cut: line 2 has {len(COLUMNS) - 4} columns, wanted {len(COLUMNS)}; make"):
        read_rates([tmp_path / "cut"])
    (tmp_path / "other").write_text("system\teer\n")
    with pytest.raises(InputError, match=r"begins with .* wanted the columns"):
        read_rates([tmp_path / "other"])
    with pytest.raises(InputError, match="no results of 'b'; available: a"):
        table(read_rates([good]), ["b"])
