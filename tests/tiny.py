"""A tiny run of the recipe on real speech, for tests: few speakers, models that train in seconds."""

import shutil
from pathlib import Path

import numpy as np
import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "egs/voxceleb/conf"
LDA_PLDA = ["center", "lda5", "length", "plda"]
TINY = {
    "ivector": {"base": "ivector_kaldi", "mini": {"ubm": {"num_gaussians": 8, "split_iterations": 4,
                                                          "diagonal_iterations": 1, "full_iterations": 1},
                                                  "extractor": {"dim": 10, "iterations": 2},
                                                  "backend": {"plda": LDA_PLDA}}},
    "xvector": {"mini": {"train": {"epochs": 2, "batch_size": 16, "chunk_frames": 100},
                         "encoder": {"channels": [24, 24, 24, 24, 32]},
                         "backend": {"plda": LDA_PLDA, "copies": ["copies", *LDA_PLDA, "asnorm5"]}}},
    "vgg_mha": {"mini": {"train": {"epochs": 1, "batch_size": 16, "chunk_frames": 100, "mask_bands": 2},
                         "encoder": {"channels": [4, 4, 8]}, "pooling": {"heads": 5},
                         "backend": {"plda": LDA_PLDA, "both": None}}},
}


def make_corpus(shared: Path, folder: Path) -> Path:
    """Copy twelve training speakers and five test speakers of minivox, with a list of all test pairs."""
    source = shared / "corpora/minivox"
    for part, speakers, utterances in (("dev", 12, 8), ("test", 5, 8)):
        for speaker in sorted((source / part / "wav").iterdir())[:speakers]:
            for path in sorted(speaker.rglob("*.flac"))[:utterances]:
                target = folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    names = [str(path.relative_to(folder / "test/wav")) for path in sorted((folder / "test/wav").rglob("*.flac"))]
    lines = [f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}\n"
             for index, a in enumerate(names) for b in names[index + 1:]]
    (folder / "veri_test.txt").write_text("".join(lines))
    return folder


def make_speechocean762(root, people, utterances):
    """Make a corpus in speechocean762's layout: people (number, part, gender, age), noise instead of speech."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        rows = {name: [] for name in ("wav.scp", "utt2spk", "spk2gender", "spk2age")}
        for number, _, gender, age in (one for one in people if one[1] == part):
            speaker = f"{number:04}"
            rows["spk2gender"].append(f"{speaker} {gender}")
            rows["spk2age"].append(f"{speaker} {age}")
            for place in range(utterances):
                one = f"0{speaker}{7 * place + number:04}"
                path = root / f"WAVE/SPEAKER{speaker}/{one}.WAV"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, rng.integers(-99, 99, 1600).astype(np.int16), 16000, format="WAV")
                rows["wav.scp"].append(f"{one}\t{path.relative_to(root)}")
                rows["utt2spk"].append(f"{one}\t{speaker}")
        (root / part).mkdir()
        for name, lines in rows.items():
            (root / part / name).write_text("".join(f"{line}\n" for line in lines))
    return root


def make_conf(folder: Path) -> Path:
    """Write the recipe's configurations with smaller mini models."""
    shutil.copytree(CONF / "features", folder / "features")
    shutil.copy(CONF / "ivector_kaldi.yaml", folder)
    for name, changes in TINY.items():
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text()) if "base" not in changes else {}
        mini = config.get("mini", {})
        for key, value in changes["mini"].items():
            mini[key] = {**mini.get(key, {}), **value} if isinstance(mini.get(key), dict) else value
        config = {**config, **changes, "mini": mini}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


def command(corpus: Path, conf: Path, work: Path, *more: str) -> list[str]:
    """Return the command line of the recipe; options in `more` take precedence."""
    return ["bash", str(ROOT / "egs/voxceleb/run.sh"), "--voxceleb1-root", str(corpus), "--conf", str(conf),
            "--scale", "mini", "--systems", "ivector xvector vgg_mha", "--valid-speakers", "3", "--nj", "2",
            "--work", str(work), *more]


def results(work: Path) -> list[list[str]]:
    """Return the rows of the table up to the last metric, without the training seconds and the origin."""
    return [line.split("\t")[:11] for line in (work / "exp/results.tsv").read_text().splitlines()]
