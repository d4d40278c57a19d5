"""The command line, as a user has it: processes, files, signals."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.conftest import made_up
from tests.training.synthetic import write_ferplus
from tests.waiting import eventually
from training.__main__ import main
from training.model.checkpoint import digest, load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS

ROOT = Path(__file__).parents[2]
SMALL = (
    "network.widths=[8,16]", "network.depths=[1,1]", "epochs=4", "batch_size=16",
    "learning_rate=0.01", "warmup_epochs=0.5", "ema_decay=0.8", "augment.mixup=0",
    "augment.erase=0",
)  # fmt: skip

CPU = ("--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up faces in FER2013's own format."""
    path = tmp_path_factory.mktemp("data") / "faces.csv"
    lines = ["emotion,pixels,Usage"]
    for usage, per_class, seed in (
        ("Training", 12, 0),
        ("PublicTest", 4, 1),
        ("PrivateTest", 4, 2),
    ):
        split = made_up(per_class, seed)
        for face, label in zip(split.faces.numpy(), split.labels.tolist(), strict=True):
            lines.append(f"{label},{' '.join(map(str, np.ravel(face)))},{usage}")
    path.write_text("\n".join(lines) + "\n")
    return path


def command(csv: Path, folder: Path, *more: str) -> list[str]:
    settings = [argument for item in SMALL for argument in ("--set", item)]
    return ["train", "--data", str(csv), "--folder", str(folder), "--device", "cpu",
            "--threads", "1",
            "--recipe", "quick", *settings, *more]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def wait_for_state(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a run has saved its state: after a step of its first epoch."""
    eventually(lambda: (folder / "state.pt").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def metrics(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [{k: v for k, v in e.items() if k != "faces_per_second"} for e in entries]


@pytest.fixture(scope="module")
def run(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("training") / "run"
    assert main(command(csv, folder)) == 0
    return folder


def test_train_export_evaluate_inspect(
    csv: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = tmp_path / "shipped.safetensors"
    for name in ("best.safetensors", "history.jsonl", "curves.png", "confusion.png"):
        assert (run / name).stat().st_size > 0
    data = ["--data", str(csv), "--device", "cpu", "--threads", "1"]
    assert main(["export", *data, "--folder", str(run), "--out", str(shipped)]) == 0
    exported = capsys.readouterr().out
    report = tmp_path / "report"
    given = ["--checkpoint", str(shipped)]
    figures = tmp_path / "figures.json"
    assert main(["evaluate", *data, *given, "--json", str(figures)]) == 0
    evaluated = capsys.readouterr().out
    table = [line for line in exported.splitlines() if line.startswith(("validation", "test"))]
    assert len(table) == 2 * (4 + 2 * 3)  # splits and passes, and splits under three priors
    for line in table:
        assert line in evaluated
    assert json.loads(figures.read_text())["test"]["faces"] == 28
    crops = tmp_path / "wild.npz"
    elsewhere = made_up(3, 5)
    np.savez(crops, faces=elsewhere.faces.numpy(), labels=elsewhere.labels.numpy())
    wild = ["--wild", str(crops)]
    assert main(["report", *data, *given, *wild, "--out", str(report)]) == 0
    results = json.loads((report / "results.json").read_text())
    assert results["test"] == json.loads(figures.read_text())["test"]
    assert len(results["robustness"]) == 9
    after = results["reliability"]["after_scaling"]["error"]
    assert after == pytest.approx(results["test"]["calibration_error"])
    assert "agreement" not in results  # one label a face
    assert results["priors"]["uniform"]["wild"]["faces"] == 21
    for name in ("confusion.png", "confusion-wild.png", "reliability.png", "robustness.png"):
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", *given]) == 0
    assert "multiply-adds a face" in capsys.readouterr().out


def test_an_annotated_checkpoint_states_its_prior_and_keeps_its_weights(
    csv: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = tmp_path / "shipped.safetensors"
    data = ["--data", str(csv), "--device", "cpu", "--threads", "1"]
    assert main(["export", *data, "--folder", str(run), "--out", str(shipped)]) == 0
    exported = load_checkpoint(shipped)
    silent = dataclasses.replace(exported.manifest, prior=None, temperatures={})
    save_checkpoint(shipped, exported.network, silent, torch.float16)
    assert main(["annotate", *data, str(shipped)]) == 0
    annotated = load_checkpoint(shipped)
    assert digest(annotated.network) == digest(exported.network)
    assert annotated.manifest.prior == exported.manifest.prior
    assert annotated.manifest.temperatures == exported.manifest.temperatures
    assert annotated.manifest.version == exported.manifest.version

    before = (run / "best.safetensors").read_bytes()
    assert main(["annotate", *data, str(run / "best.safetensors")]) == 2
    assert "not an exported checkpoint" in capsys.readouterr().err
    assert (run / "best.safetensors").read_bytes() == before

    crops = tmp_path / "wild.npz"
    elsewhere = made_up(3, 5)
    np.savez(crops, faces=elsewhere.faces.numpy(), labels=elsewhere.labels.numpy())
    out = ["--wild", str(crops), "--out", str(tmp_path / "out")]
    assert main(["compare", *data, str(shipped), str(run / "best.safetensors"), *out]) == 0
    rows = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [row["checkpoint"] for row in rows] == ["shipped"] * 3 + ["run"] * 3
    assert (tmp_path / "out/comparison.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_is_the_uncut_run(csv: Path, tmp_path: Path) -> None:
    short = ("--set", "epochs=2")
    assert main(command(csv, tmp_path / "uncut", *short)) == 0
    cut = start(*command(csv, tmp_path / "cut", "--save-every", "0", *short))
    wait_for_state(cut, tmp_path / "cut")
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    assert main(command(csv, tmp_path / "cut", "--save-every", "0", *short)) == 0
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "uncut")


def test_ctrl_c_saves_and_says_how_to_go_on(csv: Path, tmp_path: Path) -> None:
    process = start(*command(csv, tmp_path, "--set", "epochs=100000", "--save-every", "0"))
    wait_for_state(process, tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "epoch=3"], "no setting 'epoch'"),
        (["--device", "cuda:9"], "cuda:9"),
    ],
)
def test_wrong_arguments_are_named(
    csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert main(command(csv, tmp_path, *arguments)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--folder", "file/run"],
        ["export", "--out", "file/mine.safetensors"],
        ["evaluate", "--json", "gone/figures.json"],
        ["report", "--out", "file/report"],
    ],
)
def test_where_nothing_can_be_written_is_named(
    csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    recipe = ["--recipe", "quick"] if arguments[0] == "train" else []
    assert main([*arguments, *recipe, "--data", str(csv), *CPU]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"training: {arguments[-1].partition('/')[0]}")


def test_ctrl_c_while_reading_is_no_traceback(
    csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch("training.__main__.load", side_effect=KeyboardInterrupt):
        assert main(["evaluate", "--data", str(csv), *CPU]) == 130
    assert capsys.readouterr().err.endswith("stopped\n")


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path / "none.csv", tmp_path)) == 2
    assert "none.csv" in capsys.readouterr().err


def write_folder(directory: Path, emotions: Sequence[str], per_class: int = 4) -> Path:
    """Made-up faces as pictures, a folder an emotion."""
    split = made_up(per_class, 3)
    for place, (face, label) in enumerate(zip(split.faces, split.labels.tolist(), strict=True)):
        if label < len(emotions):
            folder = directory / emotions[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(face.numpy()).save(folder / f"{place}.png")
    return directory


@pytest.mark.parametrize(
    ("emotions", "chosen", "columns"),
    [
        (FER2013_EMOTIONS, "fer2013", FER2013_EMOTIONS),
        (("contempt", *FER2013_EMOTIONS[1:]), "ferplus", FERPLUS_EMOTIONS[1:]),
        (("happy", "Sad", "neutral"), "fer2013", ("happiness", "sadness", "neutral")),
        (("contempt", "fear"), "ferplus", ("fear", "contempt")),
        (("happy",), "fer2013", ("happiness",)),
    ],
)
def test_evaluate_takes_the_shipped_checkpoint_that_names_the_labels(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    emotions: tuple[str, ...],
    chosen: str,
    columns: tuple[str, ...],
) -> None:
    """With `test` alone, and some of the emotions only."""
    write_folder(tmp_path / "own" / "test", emotions, per_class=1)
    figures = tmp_path / "figures.json"
    where = ["--data", str(tmp_path / "own"), "--json", str(figures)]
    assert main(["evaluate", *where, *CPU]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"attention-fer-{chosen} ")
    heads = [line for line in said.out.splitlines() if line.startswith("recall")]
    assert heads[0].split() == ["recall", *columns]
    measured = json.loads(figures.read_text())
    assert measured["test"]["faces"] == len(emotions)
    assert "validation" not in measured
    recalls = [recall for recall in measured["test"]["recall"] if recall is not None]
    assert len(recalls) == len(emotions)
    assert measured["test"]["mean_recall"] == pytest.approx(sum(recalls) / len(recalls))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("cat", "dog"), "no shipped checkpoint names cat, dog; give --checkpoint FILE"),
        (("1", "2"), "note: the classes are numbers"),
    ],
)
def test_labels_that_no_shipped_checkpoint_names_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: tuple[str, ...], said: str
) -> None:
    write_folder(tmp_path / "test", labels)
    assert main(["evaluate", "--data", str(tmp_path), *CPU]) == 2
    assert said in capsys.readouterr().err


def test_labels_that_a_given_checkpoint_lacks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "own" / "test", ["contempt", "fear"])
    shipped = str(ROOT / "service/weights/attention-fer-fer2013.safetensors")
    where = ["--data", str(tmp_path / "own"), "--checkpoint", shipped]
    assert main(["evaluate", *where, *CPU]) == 2
    assert "own: it has contempt, which the checkpoint does not name" in capsys.readouterr().err


def test_a_report_of_some_of_a_checkpoint_s_emotions(tmp_path: Path) -> None:
    write_folder(tmp_path / "own" / "test", ["happy", "sad"], per_class=1)
    out = tmp_path / "report"
    assert main(["report", "--data", str(tmp_path / "own"), "--out", str(out), *CPU]) == 0
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert "validation" not in json.loads((out / "results.json").read_text())


def test_a_report_without_test_faces_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "validation", ["happy", "sad"])
    assert main(["report", "--data", str(tmp_path), *CPU]) == 2
    assert "no faces for test" in capsys.readouterr().err


def test_votes_measure_the_checkpoint_of_either_task(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usages = ("Training", "PublicTest", "PrivateTest")
    votes = [
        (usage, {FERPLUS_EMOTIONS[place // count % 7]: 10})
        for usage, count in zip(usages, (12, 4, 4), strict=True)
        for place in range(7 * count)
    ]
    votes[0] = ("Training", {"contempt": 10})
    voted = ["--data", str(csv), "--votes", str(write_ferplus(tmp_path / "votes.csv", votes))]
    assert main(["evaluate", *voted, *CPU]) == 0
    assert capsys.readouterr().out.startswith("attention-fer-ferplus ")
    other = str(ROOT / "service/weights/attention-fer-fer2013.safetensors")
    assert main(["evaluate", *voted, "--checkpoint", other, *CPU]) == 0
    assert "contempt" not in capsys.readouterr().out


def test_train_says_what_is_in_the_data_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "own", ["happy", "sad"], per_class=20)
    (data / "sad" / "broken.png").write_bytes(b"")
    (data / "__MACOSX").mkdir()
    assert main(command(data, tmp_path / "run", "--set", "epochs=1")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split() == ["train", "validation", "test"]
    assert lines[1].split() == ["happiness", "16", "2", "2"]
    assert lines[3].split() == ["faces", "in", "all", "32", "4", "4"]
    said = "\n".join(lines)
    assert "note: 1 folder left out, without pictures of a class: __MACOSX" in said
    assert "note: 1 file left out, not a whole picture: sad/broken.png" in said
    assert "note: no folder validation and test" in said
    assert "fewer than 100 training faces: happiness (16), sadness (16)" in said
    # The second time they come from the cache, with what was left out.
    assert main(command(data, tmp_path / "run", "--set", "epochs=1")) == 0
    assert "sad/broken.png" in capsys.readouterr().err


def test_kept_faces_are_named_listed_and_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    data = write_folder(tmp_path / "own" / "test", ["happy", "sad"], per_class=1).parent
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == "nothing is kept\n"
    assert main(["evaluate", "--data", str(data), *CPU]) == 0
    [kept] = cache.iterdir()
    assert f"the faces are kept in {kept}; delete them: " in capsys.readouterr().err
    (tmp_path / "own.cache.npz").write_bytes(b"of an older release")
    assert main(["cache"]) == 0
    assert str(kept) in capsys.readouterr().out
    assert main(["cache", "--data", str(tmp_path / "other"), "--delete"]) == 0
    assert kept.is_file()
    assert main(["cache", "--data", str(data), "--delete"]) == 0
    assert capsys.readouterr().out.count("deleted ") == 2
    assert not kept.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_without_a_home_nothing_is_kept_and_all_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "own" / "test", ["happy", "sad"], per_class=1).parent
    for key in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key)
    with mock.patch("pwd.getpwuid", side_effect=KeyError("uid not found")):
        assert main(["evaluate", "--data", str(data), *CPU]) == 0
        assert main(["cache", "--delete"]) == 0
    said = capsys.readouterr()
    assert "the faces are not kept for the next run" in said.err
    assert "nothing is kept" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quick"], "recipes that fit are finetune, fer2013, "),
        (["ablation-cpu"], "recipes that fit are finetune, fer2013, "),
        (["ferplus"], "take the recipe finetune"),
        (["everywhere"], "take the recipe finetune"),
    ],
)
def test_a_recipe_that_does_not_fit_names_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    data = write_folder(tmp_path / "own", ["happy", "sad"])
    weights = str(ROOT / "service/weights/attention-fer-ferplus.safetensors")
    where = ["--data", str(data), "--folder", str(tmp_path / "run"), "--weights", weights]
    assert main(["train", *where, *CPU, "--recipe", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_finetune_begins_with_the_shipped_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = write_folder(tmp_path / "own", ["cross", "glad"]), tmp_path / "run"
    short = ["--set", "epochs=1", "--set", "clean_epochs=0"]
    where = ["--data", str(data), "--folder", str(run)]
    assert main(["train", "--recipe", "finetune", *where, *short, *CPU]) == 0
    shipped = load_checkpoint(ROOT / "service/weights/attention-fer-ferplus.safetensors").manifest
    said = capsys.readouterr().err
    assert f"beginning with the weights of {shipped.name} {shipped.version}" in said
    best = load_checkpoint(run / "best.safetensors").manifest
    assert best.provenance["start"] == shipped.version
    assert best.emotions == ("cross", "glad")


STILL = (
    "augment.flip=0", "augment.rotate_deg=0", "augment.scale=0", "augment.shift=0",
    "augment.brightness=0", "augment.contrast=0", "network.dropout=0", "epochs=16",
    "batch_size=32",
)  # fmt: skip
"""Nothing random but the start and the order, which all processes share."""


@pytest.mark.slow
def test_two_processes_train_as_one_does(csv: Path, tmp_path: Path) -> None:
    """Started by torchrun: one history, one checkpoint, and what one process alone learns.

    Not to the last digit: each process normalises its half of a batch by that half's statistics.
    """
    still = [argument for item in STILL for argument in ("--set", item)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*launch, "-m", "training", *command(csv, tmp_path / "two", *still)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(command(csv, tmp_path / "one", *still)) == 0
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert len(two) == len(one) == 16
    losses = [[float(str(entry["loss"])) for entry in entries] for entries in (two, one)]
    # Before any step and over all of them: 0.15 nats of the 1.9 that it starts from.
    assert losses[0] == pytest.approx(losses[1], abs=0.15)
    assert losses[0][-1] < losses[0][0] - 0.5
    best = [max(float(str(e["validation_accuracy"])) for e in entries) for entries in (two, one)]
    assert best[0] == pytest.approx(best[1], abs=0.15)
