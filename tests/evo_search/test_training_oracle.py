"""TrainingOracle: it learns, the same each time, also after a kill; it fails with a log; it reads what it says it reads."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_example import SETTINGS, Dying, Pairs, Small, images

from cg.errors import CGError, StorageError
from evo_search import get_space, random_search
from evo_search._process import ProcessEnded, call_apart, interrupt_all
from evo_search._training_data import Data, _augmented
from evo_search._training_run import Recipe
from evo_search.oracles import EvaluationFailed, Oracle, oracle_from_options
from evo_search.spaces.nasbench201 import NASBench201
from evo_search.training import VALUES, TrainingOracle

CELL = "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
PROGRAM = Path(__file__).with_name("training_example.py")


def make(folder: Path | None = None, data: Any = None, network: Any = Small, **settings: Any) -> TrainingOracle:
    return TrainingOracle(images() if data is None else data, network, folder=folder, **{**SETTINGS, **settings})


def values_of(found: Any) -> dict[str, float]:
    """All but the seconds."""
    return {k: v for k, v in found.items() if k != "train_s"}


# -- real training -------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_cell_learns_cifar10_in_two_epochs(shared: Path, tmp_path: Path) -> None:
    file = shared / "data" / "images" / "cifar10_subset.npz"
    if not file.is_file():
        pytest.skip(f"needs {file} (CGTRANSFER_SHARED)")
    with np.load(file) as arrays:
        np.savez(tmp_path / "images.npz", x_train=arrays["x_train"][:600], y_train=arrays["y_train"][:600],
                 x_test=np.zeros(3), y_test=np.zeros(3))
    oracle = oracle_from_options("nasbench201", train=tmp_path / "images.npz", epochs=2, batch=25, lr=0.05,
                                 folder=tmp_path / "trained")
    assert oracle.describe()["data"]["train"] == 480
    found = random_search(_Only(), oracle, budget=1)
    assert found.best_value is not None
    assert found.best_value > 15, "chance is 10 ± 2.7 %"
    assert oracle(get_space("nasbench201").decode(CELL)) == found.best_value, "kept, under the genome and its text"


class _Only(NASBench201):
    """A search space with one network."""

    def sample(self, rng: np.random.Generator) -> Any:
        return self.decode(CELL)


def test_separable_images_are_learned_and_everything_is_told(tmp_path: Path) -> None:
    oracle = make(tmp_path)
    found = oracle(8)
    assert tuple(sorted(found)) == tuple(sorted(VALUES))
    assert found["val_acc"] > 90, "chance is 25 %"
    assert found["params"] == sum(p.numel() for p in Small(8).parameters())
    assert (found["epochs"], found["stopped_early"]) == (5.0, 0.0)
    assert found["train_s"] > 0
    folder = oracle.kept.path("8")
    log = (folder / "log.txt").read_text()
    assert [line.split()[2:4] for line in log.splitlines()[1:]] == [["epoch", f"{e}/5:"] for e in range(1, 6)]
    assert not (folder / "state.safetensors").exists(), "a finished training needs none"
    assert isinstance(oracle, Oracle)
    assert make(tmp_path, metric="val_loss")(8) == found["val_loss"]
    assert (folder / "log.txt").read_text() == log, "nothing was trained again"


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 0.01}, {"optimizer": "adamw", "lr": 0.01}, {"schedule": "linear"},
                                    {"label_smoothing": 0.1}, {"clip": 0.1}, {"weight_decay": 0.1}, {"momentum": 0.0},
                                    {"warmup_epochs": 0.5}, {"augment": "none"}, {"batch": 32}])
def test_settings_decide_the_result(change: dict[str, Any], tmp_path: Path) -> None:
    other, one = make(tmp_path, epochs=1, **change), make(tmp_path, epochs=1)
    assert values_of(other(6)) != one_epoch()
    assert other.describe() != one.describe()
    assert other.kept.path("6") != one.kept.path("6")


@cache
def one_epoch() -> dict[str, float]:
    return values_of(make(epochs=1)(6))


def test_nothing_but_settings_decides_the_result() -> None:
    first = one_epoch()
    torch.manual_seed(2)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert values_of(make(epochs=1)(6)) == first
    assert torch.equal(torch.get_rng_state(), state[0]), "the program's own generators are left alone"
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]  # noqa: NPY002


def test_a_dataset_with_random_transforms_is_reproducible(tmp_path: Path) -> None:
    first = values_of(make(data=(Pairs(0), Pairs(1)))(6))
    assert values_of(make(data=(Pairs(0), Pairs(1)))(6)) == first
    assert first["val_acc"] > 70
    held_out = make(data=Pairs(0), holdout=0.25, epochs=1)
    assert held_out.describe()["data"] == {"dataset": "Pairs", "train": 72, "val": 24, "augment": "none"}
    assert values_of(held_out(6)) == values_of(make(data=Pairs(0), holdout=0.25, epochs=1)(6))
    rows = [set(part.indices) for part in (held_out.data.train, held_out.data.val)]
    assert rows[0] | rows[1] == set(range(96))


# -- kill and resume -----------------------------------------------------------------------------------------------

def run(folder: Path, die_at: int, apart: str = "here") -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, str(PROGRAM), str(folder), apart], capture_output=True, text=True, check=False,
                          env={**os.environ, "DIE_AT": str(die_at), "PYTHONPATH": str(root)})


def test_a_killed_training_goes_on_to_the_identical_result(tmp_path: Path) -> None:
    whole = values_of(make(None, network=Dying)(6))
    done = run(tmp_path, 25)  # 10 steps an epoch: in the middle of the third
    assert done.returncode == -signal.SIGKILL, done.stderr
    oracle = make(tmp_path, network=Dying)
    folder = oracle.kept.path("6")
    assert (folder / "state.safetensors").exists()
    assert not (folder / "result.json").exists()
    assert values_of(oracle(6)) == whole
    log = (folder / "log.txt").read_text()
    assert "went on after epoch 2" in log
    assert log.count("epoch 1/5") == log.count("epoch 3/5") == 1


@pytest.mark.slow
def test_a_crash_of_the_training_process_is_a_failure_and_it_goes_on_later(tmp_path: Path) -> None:
    whole = values_of(make(None, network=Dying)(6))
    done = run(tmp_path, 35, "apart")
    assert done.returncode == 1
    assert "EvaluationFailed: the process ended with signal 9" in done.stderr
    done = run(tmp_path, 0, "apart")
    assert values_of(json.loads(done.stdout)) == whole, "in a process of its own, in two parts"


def pid_in(path: Path, seconds: float = 90.0) -> int:
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < end, "the training did not start"
        time.sleep(0.05)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_training_process_ends_with_the_program_that_asked(tmp_path: Path) -> None:
    environment = {**os.environ, "PID_FILE": str(tmp_path / "pid"), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(PROGRAM), str(tmp_path), "apart", "slow"], env=environment) as process:
        pid = pid_in(tmp_path / "pid")
        assert pid != process.pid
        process.kill()
    assert is_gone(pid)


@pytest.mark.slow
def test_training_processes_are_interrupted_and_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException] = []

    def ask(genome: str) -> None:
        try:
            make(tmp_path, own_process=True)(genome)
        except BaseException as error:
            raised.append(error)

    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    thread = threading.Thread(target=ask, args=("slow",))
    thread.start()
    pid = pid_in(tmp_path / "pid")
    interrupt_all()
    thread.join(20)
    assert [type(e) for e in raised] == [KeyboardInterrupt]
    assert is_gone(pid)
    with pytest.raises(ProcessEnded, match="ended after 1 s"):
        call_apart(time.sleep, 60, limit_s=1)
    with pytest.raises(ZeroDivisionError):
        call_apart(divmod, 1, 0)
    with pytest.raises(EvaluationFailed, match="ended with exit status 7"):
        make(tmp_path, own_process=True)("exits")


def test_an_interrupt_reaches_a_training_in_a_thread() -> None:
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            make(epochs=10_000)(6)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        interrupt_all()
        thread.join(0.1)
    assert [type(e) for e in raised] == [KeyboardInterrupt]


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_damaged_state_is_not_used(damage: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationFailed, match="out of memory"):
        make(tmp_path / "a", network=_Fails)(6)
    oracle = make(tmp_path / "a", network=_Fails)
    state = oracle.kept.path("6") / "state.safetensors"
    content = state.read_bytes()
    if damage == "other":
        wide = make(tmp_path / "b", network=_Fails)
        with pytest.raises(EvaluationFailed):
            wide(7)
        content = (wide.kept.path("7") / "state.safetensors").read_bytes()
    state.write_bytes({"cut": content[:-100], "other": content, "text": b"not a state"}[damage])
    _Fails.at = 99
    try:
        assert values_of(oracle(6)) == values_of(make(None)(6))
    finally:
        _Fails.at = 25
    assert "the kept state cannot be used" in (state.parent / "log.txt").read_text()


class _Fails(Small):
    at = 25

    def forward(self, x: torch.Tensor) -> Any:
        if self.training and self.steps == self.at:
            raise RuntimeError("out of memory")
        return super().forward(x)


# -- failures and the budget ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("genome", "message", "in_log"), [
    ("nan", r"the loss is nan in epoch 2, step 3", "epoch 1/5"), ("raises", "RuntimeError: out of memory", "in forward"),
    ("image", r"gave \(16, 3, 16, 16\) for a batch", "failed: the network gave")])
def test_a_failure_has_its_log(genome: str, message: str, in_log: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    oracle = make(tmp_path if genome == "nan" else None)
    with pytest.raises(EvaluationFailed, match=message) as failure:
        oracle(genome)
    assert in_log in failure.value.log
    assert torch.get_num_threads() == threads
    again = pickle.loads(pickle.dumps(failure.value))
    assert (str(again), again.log) == (str(failure.value), failure.value.log)


def test_too_few_outputs_are_named() -> None:
    x, y = images()
    with pytest.raises(EvaluationFailed, match="the data have class 5, the network has 4 outputs"):
        make(data=(x, y + 2))(8)


def test_a_network_with_several_outputs_is_judged_by_the_first() -> None:
    assert make(epochs=2)("two")["val_acc"] == make(epochs=2)(8)["val_acc"]


class _Slow(Small):
    def forward(self, x: torch.Tensor) -> Any:
        time.sleep(0.02 * self.training)
        return super().forward(x)


def test_a_spent_budget_fails_and_more_seconds_go_on(tmp_path: Path) -> None:
    whole = values_of(make(None, network=_Slow)(6))
    with pytest.raises(EvaluationFailed, match=r"budget of 0\.5 s was spent after [12] of 5 epochs") as failure:
        make(tmp_path, network=_Slow, budget_s=0.5)(6)
    assert "epoch 1/5" in failure.value.log
    assert values_of(make(tmp_path, network=_Slow, budget_s=60.0)(6)) == whole
    with pytest.raises(EvaluationFailed, match=r"after 0 of 5 epochs"):
        make(tmp_path / "none", network=_Slow, budget_s=0.01, on_budget="keep")(6)


def test_what_a_budget_reached_can_be_kept(tmp_path: Path) -> None:
    part = make(tmp_path, network=_Slow, budget_s=0.5, on_budget="keep")(6)
    assert part["stopped_early"] == 1.0
    assert 1 <= part["epochs"] < 5
    assert make(tmp_path, network=_Slow, budget_s=0.5, on_budget="keep")(6) == part, "kept"
    more = make(tmp_path, network=_Slow, budget_s=60.0, on_budget="keep")(6)
    assert (more["stopped_early"], more["epochs"]) == (0.0, 5.0)
    assert make(tmp_path, network=_Slow, budget_s=0.5, on_budget="keep")(6) == more, "a whole one is better than its budget"
    assert "budget_s" in make(budget_s=0.5, on_budget="keep").describe()
    assert "budget_s" not in make(budget_s=0.5).describe()


# -- many at once --------------------------------------------------------------------------------------------------

def test_threads_give_the_same_as_one_after_the_other(tmp_path: Path) -> None:
    genomes = [4, 5, 6, 4, 5, 6]
    alone = [values_of(make(None, epochs=2)(g)) for g in genomes]
    oracle = make(tmp_path, epochs=2)
    with ThreadPoolExecutor(6) as pool:
        assert [values_of(v) for v in pool.map(oracle, genomes)] == alone
    assert len(list(tmp_path.iterdir())) == 3
    assert all((p / "log.txt").read_text().count("epoch 1/2") == 1 for p in tmp_path.iterdir())


def test_it_can_be_pickled_with_its_data_on_disk(tmp_path: Path) -> None:
    x, y = images()
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y)
    oracle = make(tmp_path / "kept", tmp_path / "images.npz", epochs=1)
    text = pickle.dumps(oracle)
    assert len(text) < 5000, "the images are read again, not sent"
    assert pickle.loads(text)(6) == oracle(6)


# -- data ----------------------------------------------------------------------------------------------------------

def test_all_ways_to_give_the_same_images_are_equal(tmp_path: Path) -> None:
    (x, y), (xv, yv) = images(80), images(40, 1)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_val=xv, y_val=yv, x_test=xv[:5])
    for part, (a, b) in {"train": (x, y), "val": (xv, yv)}.items():
        image = pytest.importorskip("PIL.Image")
        for i, c in enumerate(b):
            path = tmp_path / "folder" / part / f"class{c}" / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(a[i]).save(path)
    pair = Data(((x, y), (xv, yv)), 0.2, 0, "auto", 16)
    assert Data(str(tmp_path / "images.npz"), 0.5, 1, "auto", 16).digest == pair.digest
    first = Data(((x.transpose(0, 3, 1, 2), y), (torch.from_numpy(xv), yv.tolist())), 0.2, 0, "auto", 16)
    assert first.digest == pair.digest
    folder = Data(tmp_path / "folder", 0.2, 0, "auto", 16)
    order = np.argsort(y, kind="stable")
    assert np.array_equal(folder.train.x.numpy(), x.transpose(0, 3, 1, 2)[order])
    assert folder.train.y.tolist() == y[order].tolist()
    assert Data(tmp_path / "folder" / "train", 0.25, 0, "auto", 8).train.x.shape == (60, 3, 8, 8)


def test_held_out_images_are_others_in_every_class() -> None:
    x, y = images(103)
    data = Data((x, y), 0.2, 3, "auto", 16)
    train, val = ({bytes(image) for image in part.x.numpy()} for part in (data.train, data.val))
    assert (len(train), len(val), train & val) == (len(data.train), len(data.val), set())
    assert len(train) + len(val) == 103
    assert np.bincount(data.val.y.numpy()).tolist() == [5, 5, 5, 5]
    assert bytes(Data((x, y), 0.2, 4, "auto", 16).val.x.numpy()) != bytes(data.val.x.numpy())


def test_batches_are_standardised_shuffled_and_augmented() -> None:
    x, y = images(200)
    data = Data(((x, y), (x, y)), 0.2, 0, "none", 16)
    cpu = torch.device("cpu")
    found = list(data.batches((0, 1), 64, cpu))
    assert [len(b) for _, b in found] == [64, 64, 64], "what is not a full batch is left out"
    whole = torch.cat([b for b, _ in data.validation(64, cpu)])
    assert whole.shape == (200, 3, 16, 16)
    assert whole.mean((0, 2, 3)).abs().max() < 1e-4
    assert (whole.std((0, 2, 3)) - 1).abs().max() < 1e-3
    orders = [torch.cat([b for _, b in data.batches(seed, 64, cpu)]).tolist() for seed in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert orders[0] == orders[1] != orders[2]
    assert orders[3] not in orders[:3]
    assert len(next(iter(Data(((x[:9], y[:9]), (x, y)), 0.2, 0, "none", 16).batches((0,), 64, cpu)))[1]) == 9


def test_shifts_and_mirror_images() -> None:
    x = torch.arange(1.0, 257.0).view(1, 1, 16, 16).expand(400, 1, 16, 16)
    out = _augmented(x, "crop-flip", np.random.default_rng(0))
    pad = torch.nn.functional.pad(x[:1], (2, 2, 2, 2))
    allowed = {bytes(v.contiguous().numpy()) for r in range(5) for c in range(5)
               for v in (pad[0, :, r:r + 16, c:c + 16], pad[0, :, r:r + 16, c:c + 16].flip(-1))}
    seen = {bytes(v.numpy()) for v in out}
    assert seen == allowed, "all 25 shifts, both ways"
    assert {bytes(v.numpy()) for v in _augmented(x, "flip", np.random.default_rng(0))} == {
        bytes(x[0].contiguous().numpy()), bytes(x[0].flip(-1).contiguous().numpy())}


def test_the_learning_rate_follows_its_schedule() -> None:
    rates = [Recipe(epochs=4, lr=1.0, warmup_epochs=1).rate(t, 10) for t in range(40)]
    assert rates[:10] == pytest.approx([(t + 1) / 11 for t in range(10)])
    assert rates[10] == 1.0
    assert rates[25] == pytest.approx(0.5), "half way down"
    assert 0 < rates[39] < 0.01
    assert Recipe(epochs=4, lr=1.0, schedule="linear").rate(30, 10) == pytest.approx(0.25)
    assert Recipe(epochs=4, lr=1.0, schedule="constant").rate(39, 10) == 1.0


@pytest.mark.parametrize(("change", "message"), [
    ({"epochs": 0}, "epochs must be"), ({"batch": 1.5}, "batch must be"), ({"lr": -1.0}, "lr and clip must be positive"),
    ({"weight_decay": float("nan")}, "weight_decay must be"), ({"optimizer": "lion"}, "optimizer must be one of sgd, adamw"),
    ({"schedule": "step"}, "schedule must be one of"), ({"augment": "mixup"}, "augment must be one of"),
    ({"holdout": 1.0}, "holdout must be between"), ({"budget_s": 0}, "budget_s positive"), ({"on_budget": "x"}, "on_budget"),
    ({"seed": -1}, "seed must be"), ({"threads": 0}, "threads and image_size 1 or more"), ({"workers": -1}, "workers must be"),
    ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ({"metric": "acc"}, "metric must be one of val_acc"), ({"warmup_epochs": 5.0}, "warmup_epochs must be")])
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CGError, match=message):
        make(**change)


@pytest.mark.parametrize(("data", "message"), [
    (3, "data must be"), ((np.zeros((4, 3)), np.zeros(3, int)), "training labels must be whole numbers"),
    ((np.zeros((4, 3)), np.zeros(4)), "labels must be whole numbers"), ((np.zeros((4, 3), int), [0, 1, 0, 1]), "must be uint8"),
    ((np.full((4, 3), np.nan), [0, 1, 0, 1]), "not finite"), ((np.zeros((4, 3)), [0, -1, 0, 1]), "0 or more, got -1"),
    ((np.zeros((4, 3), np.uint8), [0, 1, 0, 1]), r"must be \[n, H, W\]"),
    (((np.zeros((4, 3)), [0, 1, 0, 1]), (np.zeros((4, 3)), [0, 1, 2, 1])), "classes that the training labels do not have"),
    (((np.zeros((4, 3)), [0, 1, 0, 1]), (np.zeros((4, 2)), [0, 1, 0, 1])), "training examples are"),
    ((np.zeros((4, 3)), [0, 1, 2, 3]), "no validation examples")])
def test_data_that_cannot_be_used_are_refused(data: Any, message: str) -> None:
    with pytest.raises(CGError, match=message):
        make(data=data)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    (tmp_path / "empty").mkdir()
    for part in ("a", "b"):
        (tmp_path / "broken" / part).mkdir(parents=True)
        (tmp_path / "broken" / part / "x.png").write_text("no image")
    for name, message in (("absent.npz", "cannot read data"), ("text.npz", "cannot read data"),
                          ("other.npz", "no array 'x_train'; it has images"), ("empty", "at least 2 classes"),
                          ("broken", r"cannot read image .*x\.png")):
        with pytest.raises(StorageError, match=message):
            make(data=tmp_path / name)
    with pytest.raises(CGError, match="is for arrays"):
        make(data=(Pairs(0), Pairs(1)), augment="flip")
