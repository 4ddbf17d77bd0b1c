"""The documents are correct: every command in them runs, and the code that they show works.

In a copy of the checkout, in order: blocks of Python and YAML whose first line is `# <path>` are appended to that
file, or create it; blocks of bash are run. Tests are smaller: corpora are tiny, and recipes stop after their data,
except for the reader's own corpus, on which the documented systems are trained and tested.
"""

import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.shell.back_end import write_set
from tests.tiny import make_conf, make_speechocean762

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")), "CONTRIBUTING.md",
             *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("egs/*/README.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXTENDING = "docs/extending.md"
CALIBRATION = '{"cosine": {"weights": [1], "offset": 0, "prior": 0.05, "trials": 9, "eer": 9, "cllr": 1}}'
# Word of a command -> package that it needs.
OPTIONAL = {"onnx": "onnxruntime", "utils/demo": "uvicorn", "export_vbx": "h5py"}
ADDED = ("vgg_power", "gru", "learned")  # systems that this document adds


def blocks(document):
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def tracked():
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True,
                          text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, with tiny corpora and configurations next to it."""
    folder = tmp_path_factory.mktemp("docs")
    for name in tracked():
        (folder / "attvec" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "attvec" / name)
    subprocess.run(["bash", "local/simulate_corpus.sh", "--speakers", "12", "--utterances", "6", "--sessions", "3",
                    str(folder / "VoxCeleb1")], cwd=ROOT, check=True, capture_output=True)
    for number, speaker in enumerate(sorted((folder / "VoxCeleb1/dev/wav").iterdir())):
        shutil.copytree(speaker, folder / f"VoxCeleb2/dev/aac/id{number:05}")
    for part, name in (("dev", "train"), ("test", "test")):
        for path in (folder / "VoxCeleb1" / part / "wav").rglob("*.wav"):
            target = folder / "mine" / name / path.parts[-3] / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    rows = [f"{path.relative_to(folder / 'mine')},{path.parts[-2]},{'fm'[number // 12 % 2]},en\n"
            for number, path in enumerate(sorted((folder / "mine").rglob("*.wav")))]
    (folder / "mine.csv").write_text(f"path,speaker,gender,language\n{''.join(rows)}")
    kept = (ROOT / "egs/speechocean762/minivox/speakers").read_text().split()
    people = [(int(name[3:]), part.replace("dev", "train"), "fm"[int(name[6]) % 2], 6 + 20 * (int(name[5]) % 2))
              for name, part in zip(kept[::2], kept[1::2], strict=True)]
    make_speechocean762(folder / "speechocean762", people, 4)
    subprocess.run(["tar", "-C", folder, "-czf", folder / "speechocean762.tar.gz", "speechocean762"], check=True)
    make_kaldi(folder / "kaldi")
    for path in make_conf(folder / "conf").glob("*.yaml"):  # 48 utterances: within-speaker covariances need few values
        path.write_text(path.read_text().replace("dim: 256", "dim: 8"))
    return folder / "attvec"


def make_kaldi(recipe):
    """What Kaldi's recipe leaves: data directories, without the audio that they name, and x-vectors of 25 speakers."""
    for seed, name, speakers in ((1, "train", 12), (2, "voxceleb1_test", 5), (3, "mine", 8)):
        ids = write_set(recipe / f"exp/xvector_nnet_1a/xvectors_{name}", seed, speakers)
        data = recipe / "data" / name
        data.mkdir(parents=True)
        tables = {"utt2spk": [f"{one} {one[:4]}" for one in ids],
                  "wav.scp": [f"{one} sph2pipe -f wav /corpus/{one}.sph |" for one in ids],
                  "spk2utt": [" ".join([speaker, *(one for one in ids if one[:4] == speaker)])
                              for speaker in sorted({one[:4] for one in ids})],
                  "trials": [f"{a} {b} {'target' if a[:4] == b[:4] else 'nontarget'}"
                             for a in ids for b in ids if a < b]}
        for table, lines in tables.items():
            (data / table).write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def address(checkout):
    """The address of a local server with the archive of speechocean762."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=checkout.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/speechocean762.tar.gz"
        server.shutdown()


def smaller(block, checkout, address):
    """Return a block of commands with the test's corpora, and recipes that stop early."""
    around = checkout.parent
    block = block.replace("\\\n", " ")
    for old, new in (("/corpora/VoxCeleb", f"{around}/VoxCeleb"), ("../shared/corpora/minivox", f"{around}/VoxCeleb1"),
                     ("egs/voxceleb/first_look/simulated", f"{around}/VoxCeleb1"),
                     ("egs/voxceleb/first_look/data/test/trials/simulated_test", "work/mine/data/test/trials/test"),
                     ("egs/voxceleb/first_look/exp/vgg_mha", "work/mine/exp/vgg_power"),
                     ("work/mine/exp/vgg_mha", "work/mine/exp/vgg_power"),
                     ("/kaldi/egs/voxceleb/v2", f"{around}/kaldi"), ("--valid-speakers 40", "--valid-speakers 3"),
                     ("--conversations 20", "--conversations 2"),
                     ("/corpora/mine", f"{around}/mine"), ("/corpora/speechocean762", f"{around}/speechocean762"),
                     ("make_minivox", "make_minivox --speakers 150 --utterances 600"),
                     ("--valid-speakers 10", "--valid-speakers 3")):
        block = block.replace(old, new)
    small = f"--conf {around}/conf --scale mini --device cpu --cmd run --nj 1"
    lines = []
    for line in block.splitlines():
        if line.startswith("egs/") and "--init" in line:
            line += f" {small} --stop-stage 6"
        elif line.startswith("egs/") and "--work work/mine" in line:
            line += f" {small} --systems '{' '.join(ADDED)}'"
        elif line.startswith("egs/") and "--dry-run" in line:
            line += f" --conf {around}/conf --scale mini --systems ivector --stop-stage 2"
        elif line.startswith("egs/") and re.search("--status|--stage|work/minivox", line):
            line += f" {small} --systems 'ivector{' xvector' * ('--set' in line)}' --status"
        elif line.startswith("egs/") and "--help" not in line:
            line += f" {small} --systems ivector --valid-speakers 2 --stop-stage 0"
            line += (f" --url {address} --speakers 150 --utterances 600" if "speechocean762" in line else
                     "" if re.search("root|egs/mycorpus|egs/kaldi", line) else " --simulated-speakers 12")
        elif line == "tests/run.sh":
            line += " tests/unit/test_files.py"
        if line.startswith("utils/bundle"):  # a system of a few speakers may be too weak to be calibrated
            path = "work/mine/exp/vgg_power/calibration.json"
            lines.append(f"grep -qs weights {path} || echo '{CALIBRATION}' > {path}")
        if line.startswith("utils/demo"):  # it would serve for ever
            said = f"{around}/demo.log"
            line = (f"{line} --port 0 2> {said} & until grep -q 'Ctrl-C ends it' {said}; do kill -0 $!; sleep 0.2; "
                    "done; kill $!")
        if all(word not in line or importlib.util.find_spec(package) for word, package in OPTIONAL.items()):
            lines.append(line)
    return "\n".join(lines)


@pytest.mark.long
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_code(document, checkout, address):
    for number, (kind, text) in enumerate(blocks(document)):
        if kind in ("python", "yaml"):
            path = checkout / re.match(r"# (\S+)\n", text).group(1)
            known = path.is_file() and kind == "python"
            with open(path, "a" if known else "w", encoding="utf-8") as stream:
                stream.write("\n\n" * known + text.partition("\n")[2])
            if path.stem in ADDED and kind == "yaml":
                shutil.copy(path, checkout.parent / "conf")
        else:
            assert kind == "bash", f"{document}: blocks of {kind} are not tested"
            run(smaller(text, checkout, address), checkout, ready=number > 0 or document != DOCUMENTS[0])


def run(commands, folder, ready):
    """Run commands in the checkout; `ready`: as from a shell that has sourced its path.sh. The first command of all is
    not: it is given in a new shell."""
    kept = {key: value for key, value in os.environ.items() if key != "VOX_READY"}
    if ready:
        kept |= {"VOX_READY": str(folder), "PATH": f"{folder}/utils:{os.environ['PATH']}"}
    kept |= {"VOX_VENV": sys.prefix, "VOX_SHARED": str(folder.parent / "nothing")}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=folder, capture_output=True, text=True,
                          check=False, env=kept)
    assert done.returncode == 0, f"{commands}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


@pytest.mark.long
def test_added_systems_were_trained_and_tested(checkout):
    rows = [line.split("\t") for line in (checkout / "work/mine/exp/results.tsv").read_text().splitlines()]
    assert {row[0] for row in rows[1:]} == {*ADDED, "fusion"}
    assert {row[2] for row in rows[1:]} == {"test"}


def test_code_that_is_shown_is_short():
    sizes = [(path, text.count("\n")) for _, text in blocks(EXTENDING)
             if (path := re.match(r"# (\S+)\n", text)) and not text.startswith("# egs")]
    assert len(sizes) == 6 and all(size <= 40 for _, size in sizes)


def anchors(document):
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_path_that_is_named_is_there():
    """Words that look like paths of the repository are existing paths; links have targets, down to their headings."""
    made = {match.group(1) for _, text in blocks(EXTENDING) if (match := re.match(r"# (\S+)\n", text))}
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
            target = (ROOT / document).parent.joinpath(link) if link else ROOT / document
            assert link.startswith("http") or target.exists(), f"{document}: {link}"
            assert link.startswith("http") or not anchor or anchor in anchors(target), f"{document}: {link}#{anchor}"
        prose = BLOCK.sub("", text)
        for path in re.findall(r"(?<![\w/.<-])((?:egs|local|steps|nnet|utils|docs|tests)/[\w/.-]*\w)", prose):
            if not re.search(r"/(data|exp|first_look)\b", path) and path not in made:
                assert list(ROOT.glob(f"{path}*")), f"{document}: {path}"
