"""Requests of memory: the estimates of steps, and what the end of a log says about them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nnet import memory as networks
from tests.conftest import ROOT
from utils.config import load_config
from utils.jobs import memory
from utils.jobs.task import compared, megabytes

CONF = ROOT / "egs/voxceleb/conf"


def launch(folder, mem, *command):
    words = [sys.executable, "-m", "utils.jobs.run", *mem, str(folder / "x.log"), *command]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stderr, next(line for line in (folder / "x.log").read_text().splitlines() if "Accounting" in line)


def made_up(folder: Path, utterances: int, frames: int) -> Path:
    """A data directory's tables, without the features."""
    folder.mkdir()
    (folder / "feats.scp").write_text("".join(f"u{n} feats.ark:{n}\n" for n in range(utterances)))
    (folder / "utt2num_frames").write_text("".join(f"u{n} {frames}\n" for n in range(utterances)))
    (folder / "spk2utt").write_text("s1 u0\ns2 u1\n")
    return folder


def test_the_end_of_a_log_compares_the_peak_with_the_request(tmp_path):
    said, line = launch(tmp_path, ["--mem", "100M"], sys.executable, "-c", "len(bytearray(200 << 20))")
    assert line.endswith(" requested_mb=100 warning: took more memory than requested")
    assert "warning: 1 of 1 jobs took more memory than requested, up to 2" in said and "--mem in --cmd" in said
    said, line = launch(tmp_path, ["--mem", "4G"], "true")
    assert line.endswith(" requested_mb=4096 remark: 4.0 GB of the request were not used") and not said
    said, line = launch(tmp_path, [], "true")
    assert "requested" not in line and not said


def test_requests_in_all_forms():
    assert [megabytes(text) for text in ("512M", "4G", "1.5g", "2048K", "300", "2GB", "half")] == [
        512, 4096, 1536, 2, 300, 2048, 0]
    assert compared(900, "1000M") == " requested_mb=1000"
    assert "remark" not in compared(300, "1300M")  # less than a quarter, but not 1 GB


@pytest.mark.parametrize("engine", ["slurm", "sge"])
def test_a_step_requests_its_estimate_and_the_users_own_wins(tmp_path, engine):
    (tmp_path / "chain").mkdir()
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "chain/chain").write_text("cosine\n")
    (tmp_path / "trials").write_text("a b target\n")
    (tmp_path / "embeddings/xvector.scp").write_text("a x\nb x\n")
    (tmp_path / "embeddings/xvector.1.ark").write_bytes(bytes(100 << 20))
    wanted = memory.request(memory.score(str(tmp_path / "embeddings"), threads="3"))
    assert 500 <= megabytes(wanted) <= 1500
    for cmd, mem in ((f"{engine} --dry-run", wanted), (f"{engine} --dry-run --mem 77G", "77G")):
        done = subprocess.run([ROOT / "steps/score.sh", "--cmd", cmd, "--num-threads", "3", tmp_path / "chain",
                               tmp_path / "embeddings", tmp_path / "trials", tmp_path / "scores"],
                              capture_output=True, text=True, check=False)
        words = done.stdout.split()
        assert f"--mem={mem}" in words or f"mem_free={mem}" in words, done.stderr


def test_estimates_grow_with_what_they_depend_on(tmp_path):
    small, large = made_up(tmp_path / "small", 200, 300), made_up(tmp_path / "large", 20_000, 3000)
    config = tmp_path / "system.yaml"
    sizes = []
    for gaussians, dim in ((128, 100), (2048, 400)):
        config.write_text(yaml.safe_dump({"kind": "ivector", "features": "mfcc24", "frontend": {"deltas": 2},
                                          "ubm": {"num_gaussians": gaussians}, "extractor": {"dim": dim}}))
        where = {"config": str(config), "data": str(large)}
        sizes.append([memory.train_ubm(**where), memory.extract_ivectors(**where),
                      *(memory.train_extractor(job=job, **where) for job in ("all", "accumulate", "update")),
                      *(memory.train_ubm(job=job, nj="2", **where) for job in ("initial", "accumulate", "update"))])
        assert memory.train_ubm(str(config), str(small)) < sizes[-1][0]
        assert memory.train_ubm(str(config), str(large), threads="9") > sizes[-1][0]
    assert all(one < other for one, other in zip(*sizes, strict=True))
    assert sizes[1][2] > 8 * 2048 * (4 * 72 * 400 + 3 * 400 * 401 / 2)  # every array of the docstring
    alone, shared = (memory.train_ubm(job="accumulate", nj=nj, **where) for nj in ("1", "4"))
    assert alone - shared == pytest.approx(3 / 4 * 1e6 * 4 * (72 + 20))  # frames and Gaussians of three of four jobs
    config.write_text(config.read_text().replace("num_gaussians: 2048", "num_gaussians: 2048\n  subsample: 5"))
    assert memory.train_ubm(job="initial", nj="2", **where) > sizes[1][5] + 4 * 20_000 * 3000 / 5 / 8 * 4 * 72
    assert memory.compute_vad(str(small)) < memory.compute_vad(str(large))


def test_sizes_of_a_network_are_those_of_its_layers(tmp_path):
    """Of the x-vector at full size, whose parameters its paper states; a batch's size is that of the saved tensors."""
    config = load_config(CONF / "xvector.yaml")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(config))
    sizes = networks.sizes_of(networks.config_of(tmp_path), 30, 1211)
    assert 4_380_564 + 1211 * 512 <= sizes.parameters <= 4_380_564 + 1300 * 1024
    assert 0.95 * 4 * 1500 < sizes.largest < 1.4 * 4 * 1500  # the last layer's output, or what is saved of it
    assert sizes.saved > 4 * (4 * 512 + 1500)  # at least every layer's output
    # Attention over [h, m, sigma], three times as wide as the encoder's 1,536 channels.
    wide = load_config(CONF / "ecapa_c512.yaml")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(wide))
    assert networks.sizes_of(networks.config_of(tmp_path), 80, 1211).largest >= 0.95 * 4 * 3 * 1536
    data = made_up(tmp_path / "data", 200, 3000)
    requests = []
    for size in (64, 256):
        config["train"]["batch_size"] = size
        (tmp_path / "system.yaml").write_text(yaml.safe_dump(config))
        requests.append(networks.train_network(str(tmp_path / "system.yaml"), str(data), str(data)))
    assert requests[1] > 2 * requests[0]


def test_teachers_take_memory_once_they_are_trained(tmp_path):
    config, data = load_config(CONF / "vgg_mha.yaml", "mini"), made_up(tmp_path / "data", 200, 300)
    student = tmp_path / "b"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (student / "network.yaml").write_text(yaml.safe_dump(config | {"distil": {"models": ["a"]}}))
    before = networks.train_network(str(student / "network.yaml"), str(data), str(data))
    (tmp_path / "a/config.yaml").write_text(yaml.safe_dump(config))
    with_teacher = networks.train_network(str(student / "network.yaml"), str(data), str(data))
    sizes = networks.sizes_of(networks.config_of(tmp_path / "a"), 80, 2)
    assert with_teacher - before > 64 * 200 * sizes.largest


@pytest.mark.parametrize("system", ["saep", "vgg_mha", "fast_resnet34_cap", "resnet34_global5", "ecapa_c512",
                                    "sc_resnet18_mcsae"])
def test_every_encoder_has_an_estimate(tmp_path, system):
    """On an engine, a network without one is not trained."""
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(load_config(CONF / f"{system}.yaml", "mini")))
    data = made_up(tmp_path / "data", 200, 3000)
    found = networks.train_network(str(tmp_path / "system.yaml"), str(data), str(data))
    assert 0.5e9 < found < 8e9


def test_before_features_and_embeddings_the_sizes_of_their_data_count(tmp_path, capsys):
    """As in the dry run of a recipe after stage 0; train_net_sp will be made of train_net and train_sp."""
    for name, count in (("train", 7), ("train_net", 5), ("train_sp", 10)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for table in ("utt2spk", "spk2utt"):
            (tmp_path / "data" / name / table).write_text("u s\n" * count)
    features, exp = tmp_path / "data/mfcc24", tmp_path / "exp/xvector"
    assert [memory.data_of(features / name).utterances for name in ("train", "train_net_sp")] == [7, 15]
    assert memory.count_of(features / "train_net_sp/spk2utt") == 15
    assert memory.embeddings_of(exp / "embeddings_train") == (7, 4 * 512 * 7)
    assert memory.embeddings_of(exp / "segments_train/segments.scp")[0] == 7
    assert not capsys.readouterr().err
    assert memory.data_of(features / "test").utterances == 1_240_651
    assert "mfcc24/test/utt2spk does not exist yet: utterances 1,240,651 assumed" in capsys.readouterr().err


def test_unknown_sizes_are_assumed_and_said(tmp_path, capsys):
    assert memory.train_backend(str(tmp_path / "nothing")) > 4 * 512 * 1_240_651
    assert f"# {tmp_path}/nothing does not exist yet: utterances 1,240,651 assumed" in capsys.readouterr().err
