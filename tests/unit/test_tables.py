"""Tables in documents are those of the cards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steps.report.card import codes_of
from steps.report.tables import means_of, table_of, with_tables
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
RESULT = {"system": "net", "backend": "cosine", "list": "veri", "eer": 4.454, "eer_low": 3.0, "eer_high": 6.304,
          "mindcf01": 0.4, "mindcf05": 0.3}
CARD = {"command": "run.sh", "date": "2026-01-02", "versions": "Python 3", "machine": "a machine",
        "lists": {"veri": {"trials": 15200, "targets": 7600, "sha256": "0"},
                  "hard": {"trials": 10, "targets": 5, "sha256": "1"}},
        "back_ends": ["cosine: center cosine", "plda: center plda"],
        "systems": {"net": {"seed": "1", "scale": "mini", "code": "abc", "train_seconds": 12, "configuration": {}},
                    "iv": {"seed": "2", "scale": "mini", "code": "abc", "train_seconds": None, "configuration": {}}},
        "results": [RESULT, RESULT | {"backend": "plda", "list": "hard", "eer": 5.0, "eer_low": None, "eer_high": None},
                    RESULT | {"system": "iv", "eer": 9.996}]}


def main(*words):
    return subprocess.run([sys.executable, "-m", "steps.report.tables", *map(str, words)], capture_output=True,
                          text=True, check=False, cwd=ROOT)


def test_a_table_says_what_the_card_says():
    lines = table_of(CARD).splitlines()
    assert lines[0] == "| system | cosine, veri | cosine, hard | plda, veri | plda, hard | seconds of training |"
    assert lines[2] == "| net | 4.45 (3.00-6.30) |  |  | 5.00 | 12 |"
    assert lines[3] == "| iv | 10.00 (3.00-6.30) |  |  |  |  |"
    assert lines[5] == ("EER in %, in brackets its 95 % interval over speakers. Scale mini, code abc, of 2026-01-02, "
                        "with Python 3 on a machine. Lists: veri (15,200 trials), hard (10 trials). Back-ends: cosine: "
                        "center cosine; plda: center plda.")


def test_a_table_of_several_cards_has_means_and_ranges():
    again = CARD | {"date": "2026-01-03", "systems": {"net": CARD["systems"]["net"] | {"seed": "3"}},
                    "results": [RESULT | {"eer": 5.0}]}
    lines = means_of([CARD, again]).splitlines()
    assert lines[0] == "| system | runs | cosine, veri | plda, hard |"
    assert lines[2:4] == ["| net | 2 | 4.73 (4.45-5.00) | 5.00 |", "| iv | 1 | 10.00 |  |"]
    assert "range over seeds 1, 2, 3; code abc, up to 2026-01-03, with Python 3 on a machine." in lines[5]
    other = {"net": CARD["systems"]["net"] | {"configuration": {"train": {"epochs": 2}}}}
    with pytest.raises(InputError, match="the configuration of net differs between the cards"):
        means_of([CARD, again | {"systems": other}])
    with pytest.raises(InputError, match="two of the cards have the same results: a run counts once"):
        means_of([CARD, again, CARD])
    with pytest.raises(InputError, match="the list veri differs between the cards"):
        means_of([CARD, again | {"lists": {"veri": {"trials": 15200, "targets": 7600, "sha256": "2"}}}])


def test_a_system_has_the_code_of_all_its_rows():
    rows = [{"system": "net", "code": "a+b"}, {"system": "iv", "code": "d"}, {"system": "net", "code": "b+c"}]
    assert [codes_of(rows, name) for name in ("net", "iv")] == ["a+b+c", "d"]


def test_drift_is_found_and_repaired(tmp_path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/one.json").write_text(json.dumps(CARD))
    document = tmp_path / "README.md"
    document.write_text("# A\n\n<!-- table of cards/one.json -->\nold\n<!-- end of table -->\n\nmore\n")
    (tmp_path / "none.md").write_text("no table\n")
    assert main("--check", document).returncode == 1
    assert main(tmp_path / "none.md", document).returncode == 0
    made = document.read_text()
    assert table_of(CARD) in made and made.startswith("# A\n\n<!-- table of") and made.endswith("-->\n\nmore\n")
    assert main("--check", document).returncode == 0
    document.write_text(made.replace("4.45", "4.35"))
    done = main("--check", document)
    assert done.returncode == 1
    assert f"README.md: a table differs from its card; run python3 -m steps.report.tables {document}" in done.stderr
    (tmp_path / "cards/one.json").write_text(json.dumps(CARD | {"results": [{}]}))
    with pytest.raises(InputError, match="one.json: not a card of steps/table.sh"):
        with_tables(document)
    (tmp_path / "cards/one.json").unlink()
    with pytest.raises(InputError, match="README.md: no card .*cards/one.json; name one relative to the document"):
        with_tables(document)
    document.write_text("none\n")
    with pytest.raises(InputError, match="README.md: no table to make"):
        with_tables(document)


def test_the_tables_of_this_repository_are_those_of_its_cards():
    done = main("--check", ROOT / "README.md", *sorted((ROOT / "egs").glob("*/*.md")))
    assert done.returncode == 0, done.stderr
