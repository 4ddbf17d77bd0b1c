"""From embeddings to the table and the report: steps of the back-end, adaptation; repeated calls and bad input."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from steps.backend.plda import read_plda
from tests.shell.back_end import BOTH, call, files, score, train


def test_from_embeddings_to_the_table(work):
    done = train(work)
    assert done.returncode == 0, done.stderr
    backend = work / "exp/net/backend"
    assert files(backend) == {"cosine/chain", "cosine/mean.vec", "cosine/speakers", "plda/chain", "plda/mean.vec",
                              "plda/transform.mat", "plda/plda", "plda/speakers", "log/train.log",
                              "log/train_backend.call", ".done"}
    for kind in ("cosine", "plda"):
        done = score(work, kind)
        assert done.returncode == 0, done.stderr
    done = call("table.sh", "--command", "run.sh --x", work)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in (work / "exp/results.tsv").read_text().splitlines()]
    assert rows[0] == ["system", "backend", "list", "trials", "targets", "eer", "eer_low", "eer_high", "mindcf01",
                       "mindcf05", "mindcf01_unnormalised", "train_seconds", "seed", "scale", "code"]
    assert [row[:5] for row in rows[1:]] == [["net", kind, "veri.clean", "435", "75"] for kind in ("cosine", "plda")]
    for row in rows[1:]:
        assert 0 <= float(row[5]) < 15
        assert 0 <= float(row[6]) <= float(row[5]) + 1 <= float(row[7]) + 2
        assert float(row[8]) == pytest.approx(100 * float(row[10]), abs=1e-3)
        assert row[11] == "13"
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({len(line) for line in table}) == 1
    report = (work / "exp/RESULTS.md").read_text()
    for word in ("- cosine: center length cosine\n- plda: center lda8 length plda\n", "run.sh --x",
                 f"In every row: code {rows[1][-1]}.", "torch ", "Python 3.", "cores", *table):
        assert word in report
    card = json.loads((work / "exp/card.json").read_text())
    assert [[str(one[name]) for name in ("system", "backend", "list")] for one in card["results"]] == [
        row[:3] for row in rows[1:]]
    for one, row in zip(card["results"], rows[1:], strict=True):
        assert [one["eer"], one["eer_low"], one["mindcf01"]] == [float(row[5]), float(row[6]), float(row[8])]
    trials = (work / "data/test/trials/veri.clean").read_bytes()
    assert card["lists"] == {"veri.clean": {"trials": 435, "targets": 75, "sha256": hashlib.sha256(trials).hexdigest()}}
    assert card["systems"]["net"]["train_seconds"] == 13
    assert card["systems"]["net"]["configuration"]["backend"]["plda"] == ["center", "lda8", "length", "plda"]
    scores = [shutil.copy(work / f"exp/net/scores_test/veri.clean.{kind}", work.parent / kind)
              for kind in ("cosine", "plda")]
    done = call("compare_scores.sh", work / "data/test/trials/veri.clean", " ".join(map(str, scores)))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert f"EER {float(rows[1][5]):.2f} %, interval {rows[1][6]} to {rows[1][7]}" in first
    assert f"EER {float(rows[2][5]):.2f} %, interval {rows[2][6]} to {rows[2][7]}; " in second
    # The same call again does nothing; a changed option or input makes the outputs again.
    before = (backend / "plda/plda").stat().st_mtime_ns
    assert "up to date" in train(work).stderr
    assert "up to date" in score(work, "plda").stderr
    assert (backend / "plda/plda").stat().st_mtime_ns == before
    (work / "exp/net/system.yaml").write_text(BOTH.replace("lda8, length, plda", "lda6, length, gplda3"))
    assert train(work).returncode == 0
    assert np.count_nonzero(read_plda(backend / "plda/plda").psi > 1e-9) == 3
    assert "up to date" in score(work, "cosine").stderr  # only the other chain has changed
    assert "runs again" in score(work, "plda").stderr


def test_speakers_who_are_trained_on_are_refused(work):
    assert train(work).returncode == 0
    trials, utt2spk = work / "data/test/trials/veri.clean", work / "data/test/utt2spk"
    ids = sorted({name for line in trials.read_text().splitlines() for name in line.split()[:2]})
    # Two speakers become copies of trained ones, which only utt2spk shows: their ids name other speakers.
    names = {"s200": "s100", "s201": "sp0.9-s101"}
    utt2spk.write_text("".join(f"{one} {names.get(one[:4], one[:4])}\n" for one in ids))
    for kind in ("cosine", "plda"):
        done = score(work, kind)
        assert done.returncode == 1
        assert "veri.clean: 2 of its 5 speakers are also in the training data: s100, s101; remove them" in done.stderr
        assert "or allow it with --max-shared-speakers 0.4" in done.stderr
        assert not (work / f"exp/net/scores_test/veri.clean.{kind}").exists()
        assert score(work, kind, "--max-shared-speakers", 0.4).returncode == 0
    assert score(work, "plda", "--max-shared-speakers", "nan").returncode != 0
    utt2spk.unlink()
    assert score(work, "plda").returncode == 0
    # Speakers that only the network was trained on count, too.
    (work / "exp/net/speakers").write_text("sp1.1-s204\ns203\nx\n")
    (work / "elsewhere").write_text("".join(trials.read_text().splitlines(keepends=True)[1:]))
    done = score(work, "plda", trials=work / "elsewhere")
    assert done.returncode == 1
    assert "elsewhere: 2 of its 5 speakers are also in the training data: s203, s204; remove" in done.stderr
    (work / "exp/net/held_out").mkdir()  # whose chains are one folder further down
    (work / "exp/net/backend").rename(work / "exp/net/held_out/backend")
    done = call("score.sh", work / "exp/net/held_out/backend/plda", work / "exp/net/embeddings_test",
                work / "elsewhere", work / "held")
    assert "elsewhere: 2 of its 5 speakers are also in the training data: s203, s204; remove" in done.stderr


def test_models_of_several_utterances_and_adaptation(work):
    assert train(work).returncode == 0
    names = sorted({line.split()[0][:4] for line in (work / "data/test/trials/veri.clean").read_text().splitlines()})
    (work / "models").write_text("".join(f"{name} {name}-u0 {name}-u1 {name}-u2\n" for name in names))
    (work / "trials").write_text("".join(f"{a} {b}-u5\n" for a in names for b in names))
    for kind in ("cosine", "plda"):
        done = score(work, kind, "--enrolment", work / "models", trials=work / "trials")
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in (work / f"exp/net/scores_test/veri.clean.{kind}").read_text().splitlines()]
        best = {name: max((float(value), b) for a, b, value in lines if a == name)[1] for name in names}
        assert best == {name: f"{name}-u5" for name in names}
    (work / "labelled").write_text(f"{names[0]} {names[0]}-u5 target\n{names[0]} {names[0]}-u1 target\n")
    done = score(work, "plda", "--enrolment", work / "models", trials=work / "labelled")
    assert done.returncode == 1
    assert f"labelled:2: {names[0]} is enrolled from {names[0]}-u1; remove the line" in done.stderr
    (work / "models").write_text(f"{names[0]} {names[0]}-u0 {names[0]}-u1 {names[0]}-u0\n")
    done = score(work, "plda", "--enrolment", work / "models", trials=work / "trials")
    assert done.returncode == 1
    assert f"models: {names[0]} has {names[0]}-u0 twice; each utterance counts once" in done.stderr
    (work / "models").write_text(f"{names[0]} {names[0]}-u0 nobody\n")
    done = score(work, "plda", "--enrolment", work / "models", trials=work / "trials")
    assert done.returncode == 1
    assert "1 utterances have no embedding: nobody" in done.stderr
    net = work / "exp/net"
    first = {read_plda(net / "backend/plda/plda").psi[0]}
    for method in ("kaldi", "coral", "coral_plus"):
        done = call("adapt_backend.sh", "--method", method, net / "backend/plda", net / "embeddings_test", net / method)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in (net / method).iterdir()} == {
            "chain", "mean.vec", "transform.mat", "plda", "speakers", ".done", "log"}
        assert (net / method / "speakers").read_text() == (net / "backend/plda/speakers").read_text()
        first.add(read_plda(net / method / "plda").psi[0])
    assert len(first) == 4
    trials, place = work / "data/test/trials/veri.clean", net / "scores_test"
    shutil.rmtree(place)
    own, other = net / "embeddings_test", net / "embeddings_train"
    for words in (("score.sh", net / "coral", own, trials, place / "veri.clean.coral"),
                  ("normalise_scores.sh", "--kind", "snorm", net / "coral", work / "data/train", other,
                   work / "data/test", own, place / "veri.clean.coral", place / "veri.clean.normal"),
                  ("table.sh", work)):
        done = call(*words)
        assert done.returncode == 0, done.stderr
    said = (work / "exp/RESULTS.md").read_text()
    assert "- coral: center lda8 length plda\n" in said
    assert "- normal: center lda8 length plda, normalised (snorm) with embeddings_train\n" in said
    done = call("adapt_backend.sh", "--within", "0.9", "--between", "0.4", net / "backend/plda",
                net / "embeddings_test", net / "x")
    assert done.returncode == 1
    assert "--within 0.9 and --between 0.4: they share one excess, but their sum is more than 1" in done.stderr
    assert not (net / "x/plda").exists()
    done = call("adapt_backend.sh", net / "backend/cosine", net / "embeddings_test", net / "x")
    assert done.returncode == 1
    assert "plda is missing or empty" in done.stderr


@pytest.mark.parametrize(("config", "message"), [
    ("backend: {}", "backend names no chain"),
    ("backend: [center, lda0, plda]", "backend: the part 'lda0': wanted at least lda1"),
    ("backend: {plda: [center, heavy]}", "backend: plda: no part 'heavy' of a chain; available: copies, parts,"),
    ("features: f", "backend is None, wanted a chain or named chains"),
    ("backend: [copies, center, cosine]", "the chain cosine is trained on copies, but there are none; give"),
])
def test_bad_configurations_are_errors(work, config, message):
    (work / "exp/net/system.yaml").write_text(config + "\n")
    done = train(work)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (work / "exp/net/backend").exists() or not files(work / "exp/net/backend") - {"log/train.log"}


def test_bad_input_is_named_and_nothing_is_half_written(work):
    utt2spk = work / "data/train/utt2spk"
    lines = utt2spk.read_text()
    utt2spk.write_text(lines.replace("s1", "zz"))
    done = train(work)
    assert done.returncode == 1
    assert "no speaker in" in done.stderr
    assert "120 ids: s100-u0, " in done.stderr
    utt2spk.write_text("".join(f"{line.split()[0]} one\n" for line in lines.splitlines()))
    assert "all 120 training vectors are of speaker one" in train(work).stderr
    assert files(work / "exp/net/backend") == {"log/train.log"}
    utt2spk.write_text(lines)
    assert train(work).returncode == 0
    trials = work / "data/test/trials/veri.clean"
    good = trials.read_text()
    for text, message in ((good + "x y target\n", "2 ids have no embedding: x, y"),
                          (good.replace("\n", "\r\n"), "carriage return"), ("", "missing or empty")):
        trials.write_text(text)
        done = score(work, "plda")
        assert done.returncode == 1
        assert message in done.stderr
        assert not [path for path in (work / "exp/net/scores_test").glob("*") if path.is_file()]
    done = call("table.sh", work)
    assert done.returncode == 1
    assert "no valid scores under" in done.stderr
    trials.write_text(good)
    (work / "exp/net/embeddings_test/xvector.scp").rename(work / "exp/net/embeddings_test/vector.scp")
    assert "wanted either xvector.scp or ivector.scp, found 0" in score(work, "plda").stderr


def test_embeddings_that_are_no_numbers_are_named(work):
    ark = work / "exp/net/embeddings_test/xvector.ark"
    content = bytearray(ark.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    ark.write_bytes(content)
    assert train(work).returncode == 0
    done = score(work, "cosine")
    assert done.returncode == 1
    assert "1 embeddings have NaN or infinite values: s204-u5; extract them again" in done.stderr


def test_the_report_leaves_out_scores_of_lists_that_changed_or_went(work):
    assert train(work).returncode == 0
    assert score(work, "plda").returncode == 0
    trials = work / "data/test/trials/veri.clean"
    whole = trials.read_text()
    for text, reason in ((whole[:whole.index("\n", 2000) + 1], "input data/test/trials/veri.clean changed"),
                         (None, "the list data/test/trials/veri.clean is gone")):
        trials.unlink() if text is None else trials.write_text(text)
        done = call("table.sh", work)
        assert done.returncode == 1 and "no valid scores under" in done.stderr
        assert f"left out: net, 1 file of scores: {reason}; run the stages" in done.stderr
    (trials.parent / "other").write_text(whole)
    assert call("score.sh", work / "exp/net/backend/plda", work / "exp/net/embeddings_test", trials.parent / "other",
                work / "exp/net/scores_test/other.plda").returncode == 0
    done = call("table.sh", work)
    assert done.returncode == 0, done.stderr
    report = (work / "exp/RESULTS.md").read_text()
    assert call("report.sh", work).returncode == 0
    assert "| other |" in report and f"\nleft out: net, 1 file of scores: {reason}\n" in report
    assert {path.name for path in (work / "exp/figures").glob("det_*")} == {
        f"det_other.plda.{kind}" for kind in ("png", "pdf", "svg")}
    page = (work / "exp/report.html").read_text()
    assert f"<li>left out: net, 1 file of scores: {reason}</li>" in page
