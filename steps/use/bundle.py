"""Make a bundle of a trained system: a folder of its own that moves to other machines and is loaded without a network.

It holds the weights, the resolved configuration, the options of features and voice activity, and what is trained of
back-ends, cohort and calibration; nnet/bundle.py describes it. The new bundle is loaded once, self-check included,
before it gets its name.
e.g.: utils/bundle --licence CC-BY-4.0 egs/voxceleb/exp/xvector xvector_bundle
"""

import argparse
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from local.simulated_voice import RATE, draw_speaker, utter
from nnet.bundle import EMBEDDING, FORMAT, MANIFEST, RECORDING, VERSION, check_files, digest_of, files_of, seal_of
from nnet.embed import Model, load
from steps.backend import COMPARISONS, TRANSFORMS
from steps.backend.chain import COHORT, WORDS
from steps.use.scoring import CALIBRATION, Scoring
from utils.arguments import licence_line
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.jobs.done import code_version
from utils.kaldi.objects import write_vector
from utils.strict_yaml import read_yaml
from utils.versions import LIBRARIES

OF_NETWORK = ("config.yaml", "model.safetensors")
OF_IVECTORS = ("system.yaml", "final.ubm", "final.ie", "feats.conf", "vad.conf")
SECONDS, LEVEL = 4.0, 0.05  # of the recording; its root mean square, full scale 1
SEED = 1


def simulated_recording() -> np.ndarray:
    """Return the recording of the self-check, a simulated voice: N samples at RATE, full scale 1."""
    generator = np.random.default_rng(SEED)
    return LEVEL * utter(draw_speaker(generator, "f"), SECONDS, generator)


def model_files(exp: Path) -> dict[str, Path]:
    """Return the files of a trained system by their names in a bundle."""
    names = OF_IVECTORS if (exp / "final.ie").is_file() else OF_NETWORK
    found = {name: exp / name for name in (*names, "versions.yaml", CALIBRATION)}
    parts = [part.FILE for part in (*TRANSFORMS.values(), *COMPARISONS.values()) if part.FILE]
    for words in sorted(exp.glob(f"backend/*/{WORDS}")):
        found |= {f"backend/{words.parent.name}/{name}": words.parent / name
                  for name in (WORDS, f"{COHORT}.ark", *parts)}
    return {name: path for name, path in found.items() if path.is_file()}


def manifest_of(model: Model, folder: Path, name: str, licence: str) -> dict[str, Any]:
    """Return the contents of bundle.json for the files in `folder`."""
    trained = folder / "versions.yaml"
    said = {"format": FORMAT, "version": VERSION, "system": name,
            "kind": "ivector" if (folder / "final.ie").is_file() else "network", "rate": model.rate, "dim": model.dim,
            "licence": licence,
            "trained_with": read_yaml(trained) if trained.is_file() else {},
            "made_with": {"attvec": code_version(), "python": platform.python_version(),
                          **{library: metadata.version(library) for library in LIBRARIES}},
            "files": {file: digest_of(folder / file) for file in files_of(folder)}}
    return {**said, "seal": seal_of(said)}


def make_bundle(exp: Path, out: Path, licence: str, embeds: bool = True) -> None:
    """Bundle the system of a model folder; raises InputError if `out` exists or the system cannot be used on audio.

    embeds: false for a network whose features cannot be computed: its bundle has no self-check, and only a training can
    start from it.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} exists; remove it, or name another folder")
    model = load(exp)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.parent / f".{out.name}.{os.getpid()}.tmp"
    aside.mkdir()
    try:
        for name, path in model_files(exp).items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, aside / name)
        if embeds:
            soundfile.write(aside / RECORDING, simulated_recording(), RATE, subtype="PCM_16")
            write_vector(aside / EMBEDDING, model.embed(aside / RECORDING))
        with write_aside(aside / MANIFEST) as stream:
            json.dump(manifest_of(model, aside, exp.resolve().name, licence), stream, indent=1)
            stream.write("\n")
        load(aside) if embeds else check_files(aside)
        for chain in aside.glob("backend/*"):
            Scoring.load(aside, chain.name)
        os.rename(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/bundle", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--licence", type=licence_line, default="not stated",
                        help="one line on who may use it for what (default: %(default)s)")
    parser.add_argument("--or-warn", action="store_true",
                        help="print a warning if the system cannot be bundled, instead of an error")
    parser.add_argument("exp", type=Path, help="folder of a trained system, such as egs/voxceleb/exp/xvector")
    parser.add_argument("out", type=Path, help="the new folder")
    arguments = parser.parse_args()
    try:
        make_bundle(arguments.exp, arguments.out, arguments.licence)
    except InputError as error:
        if not arguments.or_warn:
            raise
        print(f"warning: {arguments.exp} is not bundled: {error}", file=sys.stderr)
        return
    held = files_of(arguments.out)
    chains = [file for file in held if file.endswith(f"/{WORDS}")]
    print(f"{arguments.out}: {len(held)} files, {len(chains)} back-ends, "
          f"{'calibrated' if CALIBRATION in held else 'not calibrated'}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
