"""The repository's rules: lint, import directions, names, line ends, nothing unpickled or evaluated."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("egs", "local", "steps", "utils", "nnet")
# Our packages that each package may import; the longest name that fits applies: egs -> steps -> nnet -> utils.
MAY_IMPORT = {
    "utils": set(),
    "steps": {"utils"},
    "steps.systems": {"utils", "steps", "nnet.config", "nnet.bundle"},
    "steps.network": {"utils", "nnet", "steps.backend.scoring"},
    "steps.report": {"utils", "nnet", "steps.backend.chain.WORDS"},
    "steps.diarization": {"utils", "nnet", "steps.backend", "steps.use"},
    "steps.use": {"utils", "nnet", "steps.backend", "local.simulated_voice"},
    "nnet": {"utils"},
    "nnet.embed": {"utils", "nnet", "steps.ivector.model"},  # `load` imports it, only for i-vector systems
    "nnet.encoders": {"utils", "nnet.padding", "nnet.precision"},
    "nnet.poolings": {"utils", "nnet.padding"},
    "local": {"utils"},
}


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z", *patterns],
                          capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[Path]:
    return [path for path in tracked("*.py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def test_ruff():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", ROOT], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


def test_shellcheck():
    scripts = [path for path in tracked()
               if path.suffix == ".sh" or path.read_bytes().startswith(b"#!/usr/bin/env bash")]
    assert len(scripts) > 10
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    owner = next(key for key in sorted(MAY_IMPORT, key=len, reverse=True) if f"{name}.".startswith(f"{key}."))
    for imported in imports(path):
        allowed = {owner, *MAY_IMPORT[owner]}
        assert any(f"{imported}.".startswith(f"{key}.") for key in allowed), f"{name} imports {imported}"


def test_names_shadow_nothing():
    installed = {item.metadata["Name"].replace("-", "_").lower() for item in metadata.distributions()}
    for path in modules():
        if path.stem == "__init__":
            continue
        assert path.stem not in sys.stdlib_module_names, f"{path} shadows the standard library"
        assert path.stem not in installed, f"{path} shadows an installed package"
        assert path.stem.isidentifier(), f"{path} cannot be imported"


def test_no_symlinks_and_unix_line_ends():
    for path in tracked():
        assert not path.is_symlink(), path
        if path.suffix in {".py", ".sh", ".md", ".yaml", ".conf", ".toml", ".txt", ""}:
            assert b"\r" not in path.read_bytes(), path


def test_nothing_is_unpickled_or_evaluated():
    forbidden = ("pickle.load", "torch.load(", "yaml.load(", "shell=True", " eval(", " exec(",
                 "allow_pickle=True")
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if path == ROOT / "steps/use/import_checkpoint.py":  # PyTorch's loader of tensors alone, once
            text = text.replace("torch.load(path, map_location=\"cpu\", weights_only=True)", "", 1)
        found = [word for word in forbidden if word in text]
        assert not found, f"{path}: {found}"


@pytest.mark.parametrize(("module", "slow"), [("steps.feat.compute_feats", ("torch", "scipy")),
                                              ("utils.jobs.run", ("torch", "numpy", "tqdm")),
                                              ("utils.jobs.done", ("torch", "numpy"))])
def test_programs_that_every_step_starts_are_quick_to_start(module, slow):
    done = subprocess.run([sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True,
                          text=True, check=True, cwd=ROOT)
    assert module in done.stdout.split() and not set(slow) & set(done.stdout.split())
