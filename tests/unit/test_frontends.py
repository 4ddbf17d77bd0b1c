"""Front ends as modules of the network: samples give the embeddings of stored features; a learned front end, added as a
user would add it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_up import CONFIG
from made_up_audio import RATE, write_corpus

from nnet.config import network_config
from nnet.frontends.kaldi import BLOCK, KaldiFeatures, KaldiFrontend
from nnet.model import Network
from utils.errors import InputError
from utils.features.compute import compute_features
from utils.features.frontend import FrontendOptions, apply_frontend
from utils.features.model_features import Options
from utils.features.options import read_feature_options, written_out
from utils.features.vad import VadOptions, energy_vad, vad_written_out
from utils.kaldi.ark import table_lines

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ROOT / "egs/voxceleb/conf/features"
# The front end that docs/extending.md adds.
LEARNED = re.search(r"^# nnet/frontends/learned.py\n(.*?)^```$", (ROOT / "docs/extending.md").read_text(),
                    re.MULTILINE | re.DOTALL).group(1)


@pytest.mark.parametrize(("features", "options"), [
    ("mfcc24", {"deltas": 2, "cmn": "sliding", "cmn_window": 60, "vad": True}),
    ("mfcc30", {"cmn": "sliding", "cmn_window": 50, "norm_vars": True}),
    ("fbank40_hamming", {"cmn": "chunk"}), ("fbank128", {"cmn": "utterance"}), ("fbank80", {})])
@pytest.mark.parametrize("snip_edges", [True, False])
def test_samples_give_the_frames_and_embeddings_of_stored_features(tmp_path, features, options, snip_edges):
    text = (FEATURES / f"{features}.conf").read_text()
    lines = [line for line in text.splitlines() if "snip-edges" not in line]
    (tmp_path / "x.conf").write_text("\n".join([*lines, f"--snip-edges={str(snip_edges).lower()}\n"]))
    of_data, vad = read_feature_options(tmp_path / "x.conf"), VadOptions(energy_threshold=0.0, energy_mean_scale=1.0)
    network = Network(network_config(CONFIG | {
        "frontend": options, "feature_options": written_out(of_data), "vad_options": vad_written_out(vad)}, "x"),
        of_data.dim, 3).eval()
    rng = np.random.default_rng(0)
    sounds = [(2000 * np.sin(np.arange(size) * 0.05 * (1 + k)) * (np.sin(np.arange(size) / 4000) > -0.3)
               + 30 * rng.normal(size=size)).astype(np.float32) for k, size in enumerate((16000, 9001, 23456))]
    lengths = torch.tensor([len(sound) for sound in sounds])
    wav = torch.full((3, 24000), 1e4)  # samples beyond an utterance's end must not count
    for row, sound in enumerate(sounds):
        wav[row, :len(sound)] = torch.from_numpy(sound)
    with torch.inference_mode():
        frames, counts = network.frontend(wav, lengths)
        together = network.embed(wav, lengths)
        for row, sound in enumerate(sounds):
            stored = compute_features(sound, of_data)
            assert len(stored) == of_data.frames_of(len(sound))
            voicing = energy_vad(stored, vad) if options.get("vad") else None
            assert voicing is None or 0.2 < voicing.mean() < 0.95
            wanted = apply_frontend(stored, voicing, FrontendOptions(**options))
            assert int(counts[row]) == len(wanted)
            assert np.abs(frames[row, :len(wanted)].numpy() - wanted).max() < 0.02
            vector = network.embed_features(torch.from_numpy(wanted)[None])[0]
            assert torch.cosine_similarity(together[row], vector, dim=0) > 1 - 1e-6
            alone = network.embed(torch.from_numpy(sound)[None])[0]
            torch.testing.assert_close(alone, together[row], atol=1e-4, rtol=0)


def test_geometry_of_the_front_end():
    given = Options(written_out(read_feature_options(FEATURES / "fbank80.conf")), {})
    frontend = KaldiFrontend(FrontendOptions(deltas=1), given, 80)
    assert (frontend.output_dim, frontend.rate, frontend.frame_rate) == (160, 16000, 100.0)
    assert frontend.chunks(torch.zeros(1, frontend.samples_of(7))).shape == (1, 7, 160)
    assert not list(frontend.state_dict())  # the front end adds nothing to model files


def test_long_audio_in_blocks_is_the_same(monkeypatch):
    layer = KaldiFeatures(read_feature_options(FEATURES / "mfcc24.conf"))
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 1000, (1, RATE)).astype(np.float32))
    whole = layer(samples)
    monkeypatch.setattr("nnet.frontends.kaldi.BLOCK", 13)
    torch.testing.assert_close(layer(samples), whole, rtol=1e-5, atol=1e-4)
    assert BLOCK > whole.shape[1] > 26


def test_front_ends_say_what_they_lack():
    data = Options(written_out(read_feature_options(FEATURES / "mfcc24.conf")), None)
    with pytest.raises(InputError, match="feature options are unknown"):
        KaldiFrontend(FrontendOptions(), Options(None, {}), 24)(torch.zeros(1, RATE))
    with pytest.raises(InputError, match="options of the voice activity are unknown"):
        KaldiFrontend(FrontendOptions(vad=True), data, 24)(torch.zeros(1, RATE))
    with pytest.raises(InputError, match="feature options give 24 values per frame, the features have 30"):
        KaldiFrontend(FrontendOptions(), data, 30)
    with pytest.raises(InputError, match="frontend: type is 'wave'; allowed: kaldi"):
        network_config(CONFIG | {"frontend": {"type": "wave"}}, "x")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the programs with one more front end: a module, and an entry in the table."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("steps", "utils", "nnet"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "path.sh", folder)
    table = folder / "nnet/frontends/__init__.py"
    changed = {folder / "nnet/frontends/learned.py": LEARNED, table: table.read_text().replace(
        "FRONTENDS = {\n", 'FRONTENDS = {\n    "learned": (Learned, LearnedOptions),\n').replace(
        "from utils.features", "from nnet.frontends.learned import Learned, LearnedOptions\nfrom utils.features", 1)}
    for path, text in changed.items():
        path.write_text(text)
    assert len(changed) == 2
    return folder


def run(checkout, *words, fails=False):
    env = {**os.environ, "VOX_READY": str(checkout), "PYTHONPATH": str(checkout),
           "PATH": f"{checkout / 'utils'}:{os.environ['PATH']}"}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=env, cwd=checkout,
                          stdin=subprocess.DEVNULL)
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr.splitlines()[-1] if fails else done.stdout


@pytest.mark.long
def test_a_learned_front_end_is_a_module_an_entry_and_a_yaml(checkout, tmp_path):
    """Trained on audio augmented online, and used for embeddings by the steps and by `load`, and for segments."""
    train, valid = write_corpus(tmp_path / "train", 5, 4, False), write_corpus(tmp_path / "valid", 3, 3, False, first=5)
    for folder in (train, valid):
        write_speakers(folder)
    exp = tmp_path / "exp"
    exp.mkdir()
    config = CONFIG | {"frontend": {"type": "learned", "filters": 12}, "train": {"epochs": 3, "batch_size": 6,
                       "chunk_frames": 40}, "online": {"kinds": ["noise"], "share": 0.5}, "train_set": "train_net"}
    (exp / "system.yaml").write_text(yaml.safe_dump(config))
    run(checkout, checkout / "steps/train_network.sh", exp / "system.yaml", train, valid, exp)
    assert "frontend.filters" in run(checkout, "python3", "-m", "nnet.describe", "--num-speakers", 5, named(
        tmp_path, config))
    run(checkout, checkout / "steps/extract_embeddings.sh", "--nj", 2, exp, valid, exp / "embeddings")
    names = [name for name, _ in table_lines(valid / "feats.scp")]
    paths = dict(table_lines(valid / "wav.scp"))
    plain = [name for name in names if not name.startswith("sp")]  # the others are copies at another speed
    found = run(checkout, sys.executable, "-c", f"""
import numpy as np, sys
from nnet.embed import load
from utils.kaldi.ark import iterate
model = load({str(exp)!r})
stored = dict(iterate({str(exp / 'embeddings/xvector.scp')!r}))
assert list(stored) == {names!r}
for name, path in {[(name, paths[name]) for name in plain]!r}:
    a, b = model.embed(path), stored[name]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 1 - 1e-5, name
try:
    model.embed_features(np.zeros((9, 10), np.float32))
except Exception as error:
    print(error)
""")
    assert "takes audio, not features (frontend: type learned); use embed" in found
    run(checkout, checkout / "steps/extract_segments.sh", "--segments", 2, "--segment-frames", 30, exp, valid,
        exp / "segments")


def write_speakers(folder):
    """Write spk2utt, which the steps require."""
    found = {}
    for name, speaker in table_lines(folder / "utt2spk"):
        found.setdefault(speaker, []).append(name)
    (folder / "spk2utt").write_text("".join(f"{speaker} {' '.join(names)}\n" for speaker, names in found.items()))


def named(folder, config):
    """A configuration file with its features next to it."""
    (folder / "conf/features").mkdir(parents=True)
    shutil.copy(FEATURES / "fbank80.conf", folder / "conf/features/fbank.conf")
    path = folder / "conf/x.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.long
def test_what_a_learned_front_end_cannot_do_is_refused(checkout, tmp_path):
    data = write_corpus(tmp_path / "data", 2, 2, False)
    for change, message in (
            ({"train": CONFIG["train"]}, "frontend: type learned takes audio; train.shuffle_mb, mask_frames and"),
            ({"frontend": {"type": "learned", "cmn": "utterance"}}, "frontend: learned has no option 'cmn'"),
            ({"train": {"epochs": 1, "batch_size": 2, "chunk_frames": 9}}, "fewer than the 15 frames that the")):
        config = CONFIG | {"frontend": {"type": "learned"}, "train": {"epochs": 1, "batch_size": 2}} | change
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
        assert message in run(checkout, "python3", "-m", "nnet.training.train", tmp_path / "x.yaml", data, data,
                              tmp_path / "exp", fails=True)
