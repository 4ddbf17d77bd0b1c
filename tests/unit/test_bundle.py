"""Bundles: what they hold, that they load like the folder of training, and what is refused; embedding in bulk."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnet.bundle import TOLERANCE, files_of, seal_of
from nnet.embed import load
from tests.in_process import call
from tests.unit.made_up import RATE, write_speech
from tests.unit.made_up_systems import train_systems
from utils.errors import InputError
from utils.kaldi.ark import read_vectors
from utils.kaldi.objects import read_vector, write_vector

KINDS = ("network", "ivector")
WEIGHTS = {"network": "model.safetensors", "ivector": "final.ie"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "data")


@pytest.fixture(scope="module")
def bundles(data, tmp_path_factory):
    """The folders of a network and of an i-vector system in exp/, and their bundles."""
    folder = tmp_path_factory.mktemp("bundles")
    train_systems(data, folder / "exp")
    for kind in KINDS:
        done = call("steps.use.bundle", "--licence", "CC-BY-4.0", folder / "exp" / kind, folder / kind)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def files(data):
    return [line.split()[1] for line in (data / "wav.scp").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_embeds_like_the_folder_of_training_wherever_it_lies(bundles, files, tmp_path, kind):
    moved = shutil.copytree(bundles / kind, tmp_path / "else where")
    assert (load(moved).embed(files) == load(bundles / "exp" / kind).embed(files)).all()
    manifest = json.loads((moved / "bundle.json").read_text())
    assert manifest["format"] == "attvec bundle" and manifest["version"] == 1
    assert (manifest["kind"], manifest["system"], manifest["rate"]) == (kind, kind, RATE)
    assert manifest["licence"] == "CC-BY-4.0"
    assert {"attvec", "python", "torch"} <= set(manifest["made_with"]) & set(manifest["trained_with"])
    there = {str(path.relative_to(moved)) for path in moved.rglob("*") if path.is_file()} - {"bundle.json"}
    assert set(manifest["files"]) == there > {"self_check.flac", "self_check.vec", "versions.yaml"}
    assert all(hashlib.sha256((moved / name).read_bytes()).hexdigest() == digest
               for name, digest in manifest["files"].items())


def test_bundles_of_one_model_are_alike(bundles, tmp_path):
    done = call("steps.use.bundle", "--licence", "CC-BY-4.0", bundles / "network", tmp_path / "network")
    assert done.returncode == 0, done.stderr
    for name in [*files_of(bundles / "network"), "bundle.json"]:
        assert (tmp_path / "network" / name).read_bytes() == (bundles / "network" / name).read_bytes(), name


def test_the_recording_of_the_self_check_is_a_voice(bundles):
    samples, rate = soundfile.read(bundles / "network/self_check.flac")
    assert rate == RATE and 3 < len(samples) / rate < 6
    assert np.sqrt(np.mean(samples**2)) > 0.02 and np.abs(samples).max() < 0.99


def change(path, place=-100):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def edit(path, **changes):
    """Change what bundle.json says, seal included, as somebody would who wants it to be accepted."""
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(found | {"seal": seal_of(found)}))


def relist(folder):
    """List the files of a changed bundle anew, as somebody would who wants them to be accepted."""
    edit(folder / "bundle.json", files={name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                                        for name in files_of(folder)})


def other_embedding(folder):
    vector = read_vector(folder / "self_check.vec", np.float32)
    write_vector(folder / "self_check.vec", vector + 2 * TOLERANCE * np.linalg.norm(vector) / len(vector)**0.5)
    relist(folder)


def short_embedding(folder):
    write_vector(folder / "self_check.vec", np.ones(2, np.float32))
    relist(folder)


def link(folder):
    (folder / "self_check.vec").rename(folder.parent / "self_check.vec")
    (folder / "self_check.vec").symlink_to(folder.parent / "self_check.vec")


HARM = {
    "changed": (lambda folder: change(next(folder / name for name in WEIGHTS.values() if (folder / name).is_file())),
                "has changed since the bundle was made"),
    "cut": (lambda folder: (folder / "self_check.flac").write_bytes(b"fLaC"), "self_check.flac has changed"),
    "missing": (lambda folder: (folder / "versions.yaml").unlink(), "versions.yaml is missing; copy the bundle again"),
    "added": (lambda folder: (folder / "backend").mkdir() or (folder / "backend/mean.vec").write_text("[ 1 ]"),
              "backend/mean.vec is not listed in bundle.json"),
    "link": (link, "self_check.vec is a link"),
    "newer": (lambda folder: edit(folder / "bundle.json", version=2),
              r"a bundle of version 2, this program reads version 1; use the program that made it \(attvec "),
    "older": (lambda folder: edit(folder / "bundle.json", version=None), "a bundle of version None"),
    "other": (lambda folder: edit(folder / "bundle.json", format="zip"), "its format is not 'attvec bundle'"),
    "licence": (lambda folder: (folder / "bundle.json").write_text(
        (folder / "bundle.json").read_text().replace("CC-BY-4.0", "CC-BY-4.1")), "bundle.json has changed since"),
    "list": (lambda folder: (folder / "bundle.json").write_text("[]"), "its format is not 'attvec bundle'"),
    "damaged": (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json: damaged: "),
    "binary": (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\xfe"), "bundle.json: damaged: "),
    "deep": (lambda folder: (folder / "bundle.json").write_text("[" * 99999), "bundle.json: damaged: "),
    "no list": (lambda folder: edit(folder / "bundle.json", files=["a"]), "damaged: no list of files"),
    "outside": (lambda folder: edit(folder / "bundle.json", files={"../x": "0" * 64}), r"\.\./x is missing"),
    "other embedding": (other_embedding, r"the embedding of self_check.flac differs by (1.9|2.0)\d%"),
    "short embedding": (short_embedding, "self_check.vec has 2 values, an embedding "),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", HARM)
def test_a_bundle_that_is_not_as_it_was_made_is_refused(bundles, tmp_path, kind, harm):
    folder = shutil.copytree(bundles / kind, tmp_path / "bundle")
    damage, message = HARM[harm]
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_another_model_fails_the_self_check(bundles, tmp_path):
    """Weights that are listed correctly, but are not those that the recording was embedded with."""
    folder = shutil.copytree(bundles / "ivector", tmp_path / "bundle")
    conf = folder / "feats.conf"
    conf.write_text(conf.read_text().replace("--low-freq=20.0", "--low-freq=60.0"))
    relist(folder)
    with pytest.raises(InputError, match="self-check failed"):
        load(folder)


def test_hidden_files_do_not_matter(bundles, tmp_path):
    folder = shutil.copytree(bundles / "network", tmp_path / "bundle")
    (folder / ".DS_Store").write_text("x")
    assert load(folder).dim == 12


def test_nothing_is_unpickled_or_started(bundles):
    program = """
import sys
from nnet.embed import load
import steps.ivector.model

def refuse(event, arguments):
    if event.split(".")[0] in ("pickle", "subprocess", "os", "socket") and event in (
            "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
            "socket.connect"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
for folder in sys.argv[1:]:
    print(load(folder).dim)
import pickle
pickle.loads(b"cos\\nsystem\\n(S'true'\\ntR.")
"""
    done = subprocess.run([sys.executable, "-c", program, *(bundles / kind for kind in KINDS)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.stdout == "12\n3\n", done.stderr
    assert "pickle.find_class" in done.stderr  # the hook would have seen it


def test_what_cannot_be_bundled_leaves_nothing(bundles, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "empty").mkdir()
    silent = shutil.copytree(bundles / "exp/ivector", tmp_path / "silent")
    (silent / "feats.conf").unlink()
    before = sorted(tmp_path.rglob("*"))
    for words, message in ((("exp/network", "there"), "there exists; remove it, or name another folder"),
                           (("empty", "new"), "no trained system: neither model.safetensors nor final.ie"),
                           (("silent", "new"), "does not state its feature options"),
                           (("--licence", "a\nb", "exp/network", "new"), "wanted one line")):
        paths = [str(bundles / word) if word.startswith("exp") else str(tmp_path / word) for word in words[-2:]]
        done = call("steps.use.bundle", *words[:-2], *paths)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def step(*words, **environment):
    return subprocess.run(["bash", ROOT / "steps/bundle.sh", *words], capture_output=True, text=True, check=False,
                          env={**os.environ, "VOX_VENV": sys.prefix, **environment})


def test_the_step_makes_a_bundle_once_and_again_when_the_system_changes(bundles, tmp_path):
    exp = shutil.copytree(bundles / "exp/ivector", tmp_path / "ivector")
    done = step("--licence", "CC-BY-4.0", exp, exp / "bundle")
    assert done.returncode == 0, done.stderr
    for name in [*files_of(bundles / "ivector"), "bundle.json"]:
        assert (exp / "bundle" / name).read_bytes() == (bundles / "ivector" / name).read_bytes(), name
    before = (exp / "bundle/bundle.json").stat().st_mtime_ns
    done = step("--licence", "CC-BY-4.0", exp, exp / "bundle")
    assert done.returncode == 0 and "up to date" in done.stderr
    assert (exp / "bundle/bundle.json").stat().st_mtime_ns == before
    report = tmp_path / "status"
    for harm, state in (("", "done"), ("feats.conf", "stale"), ("bundle/final.ie", "stale")):
        if harm:
            change(exp / harm, 3)
        report.write_text("")
        assert step("--licence", "CC-BY-4.0", exp, exp / "bundle", VOX_STATUS=str(report)).returncode == 0
        assert report.read_text().split("\t")[0] == state, harm
        if harm:
            change(exp / harm, 3)
    (tmp_path / "new").mkdir()
    step(tmp_path / "new", tmp_path / "new/bundle", VOX_STATUS=str(report))
    assert report.read_text().splitlines()[-1].startswith("to do\t")
    (exp / "calibration.json").write_text("{}")
    done = step("--licence", "mine", exp, exp / "bundle")
    assert done.returncode == 0 and "runs again" in done.stderr
    manifest = json.loads((exp / "bundle/bundle.json").read_text())
    assert "calibration.json" in manifest["files"] and manifest["licence"] == "mine"


@pytest.mark.long
def test_the_step_names_a_system_that_cannot_be_bundled_and_removes_nothing_else(bundles, tmp_path):
    exp = shutil.copytree(bundles / "exp/ivector", tmp_path / "ivector")
    (exp / "feats.conf").unlink()
    done = step(exp, exp / "bundle")
    assert done.returncode == 0, done.stderr
    assert f"warning: {exp} is not bundled: {exp} does not state its feature options" in done.stderr
    assert not (exp / "bundle").exists() and not (exp / ".done_bundle").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").touch()
    done = step(bundles / "exp/ivector", tmp_path / "mine")
    assert "mine exists; remove it, or name another folder" in done.stderr and (tmp_path / "mine/precious").is_file()
    assert not list(tmp_path.glob(".done*"))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_model(bundles, files, kind):
    model = load(bundles / kind)
    wanted = model.embed(files)
    assert wanted.dtype == np.float32 and wanted.shape == (len(files), model.dim)
    together = threading.Barrier(4)

    def embed(_):
        together.wait()  # all begin at once
        return [model.embed(files), np.stack([model.embed(path) for path in files])]

    with ThreadPoolExecutor(4) as pool:
        for several, one_by_one in pool.map(embed, range(4)):
            np.testing.assert_allclose(several, wanted, atol=1e-5 * np.abs(wanted).max())
            np.testing.assert_allclose(one_by_one, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("place", ["folder", "list", "files"])
def test_embed_files_folders_and_lists(bundles, data, files, tmp_path, place):
    """The same embeddings as Model.embed, under the ids that a list, a folder or the files' names give."""
    ids = [line.split()[0] for line in (data / "wav.scp").read_text().splitlines()]
    words = {"list": [data / "wav.scp"], "files": files, "folder": [tmp_path / "sound"]}[place]
    if place == "folder":
        for name, path in zip(ids, files, strict=True):
            speaker, _, rest = name.partition("-")
            (tmp_path / "sound" / speaker).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / f"sound/{speaker}/{rest}.wav")
        (tmp_path / "sound/notes.txt").write_text("no audio")
        (tmp_path / f"sound/{speaker}/._{rest}.wav").write_text("what a Mac leaves beside a file")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "sound" / speaker).rename(tmp_path / "elsewhere" / speaker)
        (tmp_path / "sound" / speaker).symlink_to(tmp_path / "elsewhere" / speaker)
    wanted = load(bundles / "network").embed(files)
    for name in ("x.npz", "x.scp"):
        done = call("steps.use.embed", bundles / "network", *words, "--out", tmp_path / "out" / name)
        assert done.returncode == 0, done.stderr
        assert f"{len(ids)} embeddings of 12 values" in done.stderr
        left_out = "sound: 1 of 13 files are not audio by their ending and are left out" in done.stderr
        assert left_out == (place == "folder")
    scp_ids, vectors = read_vectors(tmp_path / "out/x.scp")
    with np.load(tmp_path / "out/x.npz") as found:
        assert found["embeddings"].dtype == np.float32
        for names, values in ((found["ids"].tolist(), found["embeddings"]), (scp_ids, vectors)):
            assert names == ids
            np.testing.assert_allclose(values, wanted, atol=1e-3 * np.abs(wanted).max())


def test_bulk_in_blocks_keeps_the_order(bundles, files, monkeypatch):
    model = load(bundles / "network")
    wanted = model.embed(files)
    for limits in ({"BLOCK_FILES": 5}, {"BLOCK_VALUES": 1}):
        with monkeypatch.context() as patch:
            for name, value in limits.items():
                patch.setattr(f"nnet.embed.{name}", value)
            found = np.stack(list(model.embed_each(files)))
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_unreadable_recordings_stop_the_command_unless_a_share_may_fail(bundles, files, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    done = call("steps.use.embed", bundles / "network", *files, bad, "--out", tmp_path / "x.npz")
    assert done.returncode == 1 and "bad.wav: damaged, or not audio" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.wav"]
    done = call("steps.use.embed", "--max-failed", "0.1", bundles / "network", bad, *files, "--out", tmp_path / "x.npz")
    assert done.returncode == 0 and "bad.wav: damaged, or not audio" in done.stderr and "left out" in done.stderr
    with np.load(tmp_path / "x.npz") as found:
        assert found["ids"].tolist() == [Path(path).stem for path in files]
        np.testing.assert_allclose(found["embeddings"][3], load(bundles / "network").embed(files[3]), rtol=0.01)


def test_what_is_said_of_many_files_is_said_once(bundles, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.normal(size=8000), 8000)
        soundfile.write(tmp_path / f"silent{number}.wav", np.zeros(16000), RATE)
    done = call("steps.use.embed", bundles / "network", tmp_path, "--out", tmp_path / "x.npz")
    assert done.returncode == 0
    for words in (("0.wav", "1.wav", "2.wav", "8000 Hz, the model was trained at 16000 Hz: it misses what lies above "
                   "4000 Hz"), ("silent0.wav", "silent1.wav", "digital silence")):
        line, = [line for line in done.stderr.splitlines() if words[-1] in line]
        assert all(word in line for word in words)


@pytest.mark.parametrize(("words", "message"), [
    (["x.wav", "--out", "x.txt"], "--out is x.txt, wanted a name that ends in .scp or .npz"),
    (["empty", "--out", "x.npz"], "empty: no audio in this folder"),
    (["a/x.wav", "b/x.wav", "--out", "x.npz"], "a/x.wav and b/x.wav would both be called x; name them in a wav.scp"),
    (["none.wav", "--out", "x.npz"], "none.wav: No such file or directory"),
    (["nan.wav", "--out", "x.npz"], "nan.wav: NaN or infinite samples"),
    (["bare.wav", "--out", "x.npz"], "bare.wav: empty, 0 bytes"),
    (["a b.wav", "--out", "x.scp"], "1 names cannot be ids in x.scp, such as 'a b': no spaces, UTF-8; write "
     "x.npz, or give the recordings ids in a wav.scp"),
    (["pipe.scp", "--out", "x.npz"], "is a command"),
    (["--device", "tpu", "a b.wav", "--out", "x.npz"], "--device tpu: wanted cpu, cuda or cuda:N")])
def test_bad_calls_of_embed_end_in_one_line(bundles, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bare.wav").touch()
    Path("pipe.scp").write_text("a echo |\n")
    sound = np.random.default_rng(0).normal(size=9000) / 9
    soundfile.write("a b.wav", sound, RATE)
    soundfile.write("nan.wav", np.where(np.arange(9000) == 7, np.nan, sound), RATE, subtype="FLOAT")
    done = call("steps.use.embed", bundles / "network", *words)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("**/*x.*"))


@pytest.mark.parametrize("command", ["bundle", "embed", "verify", "enrol", "identify", "export_onnx", "demo"])
def test_commands_print_their_usage(command, tmp_path):
    """From any folder, through utils/."""
    done = subprocess.run([ROOT / "utils" / command, "--no-such-option"], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "VOX_VENV": sys.prefix})
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: utils/{command} ")
    done = call(f"steps.use.{command}", "--help")
    assert done.returncode == 0 and "e.g.: utils/" in done.stdout


def test_importing_what_embeds_does_not_import_what_is_slow():
    """SciPy and the rest take longer to import than a recording takes to embed."""
    done = subprocess.run([sys.executable, "-c", "import nnet.embed, sys; print(*sys.modules, sep='\\n')"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded and not loaded & {"scipy", "av", "matplotlib", "tensorboard", "steps"}
