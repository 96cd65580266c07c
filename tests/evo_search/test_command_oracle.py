"""CommandOracle with real processes: what reaches the command, what is read of it, and that nothing outlives its limit."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cg import GraphSet
from cg.errors import CGError
from evo_search import get_space, random_search
from evo_search.command import CommandOracle, interrupt_all
from evo_search.oracles import EvaluationFailed, Oracle, OracleError, oracle_from_options

PYTHON = shlex.quote(sys.executable) + " -S"
CELL = "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
NASTY = ["|a~0|+|b c|", "it's \"quoted\"", "$(touch pwned) `touch pwned`; touch pwned", "{out} {{seed}}", "a\\b*?[x]~",
         "--flag", "", "line\nbreak", "ünïcode ☃"]


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a program and returns how to call it."""
    def write(code: str) -> str:
        path = tmp_path / "program.py"
        path.write_text("import json, os, signal, sys, time\n" + textwrap.dedent(code))
        return f"{PYTHON} {shlex.quote(str(path))}"
    return write


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process has ended, or does within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# -- what reaches the command --------------------------------------------------------------------------------------

@pytest.mark.parametrize("arch", NASTY)
@pytest.mark.parametrize("shell", [False, True])
def test_a_genome_arrives_as_it_is(arch: str, shell: bool, script: Callable[[str], str], tmp_path: Path) -> None:
    call = script("""
        json.dump({"n": len(sys.argv), "a": 1}, open(sys.argv[-1], "w"))
        json.dump([sys.argv[1:-1], os.environ["CG_ARCH"]], open(os.path.join(os.environ["CG_FOLDER"], "seen.json"), "w"))
        """)
    oracle = CommandOracle(f"{call} x {{arch}} --name=<{{arch}}> {{out}}" if not shell else
                           f"{call} x {{arch}} --name={{arch}} {{out}}", folder=tmp_path / "kept", shell=shell, cwd=tmp_path)
    assert oracle(arch) == {"n": 5.0, "a": 1.0}
    seen = json.loads((oracle.kept.path(arch) / "seen.json").read_text())
    assert seen == [["x", arch, f"--name={arch}" if shell else f"--name=<{arch}>"], arch]
    assert not (tmp_path / "pwned").exists()


def test_graph_onnx_and_seed_are_files_and_numbers(script: Callable[[str], str], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import onnx

    space = get_space("nasbench201")
    genome = space.decode(CELL)
    oracle = CommandOracle(f"{script('print(sys.argv[3])')} {{graph}} {{onnx}} {{seed}}", space="nasbench201", seed=7,
                           folder=tmp_path / "kept")
    assert oracle(genome) == 7.0
    folder = oracle.kept.path(CELL)
    graphs = GraphSet.read(folder / "graph.parquet")
    assert graphs.ids == (CELL,)
    assert graphs[0] == space.to_graph(genome)
    model = onnx.load(folder / "model.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]
    weights = sum(int(np.prod(t.dims)) for t in model.graph.initializer if len(t.dims) > 1)
    assert weights == pytest.approx(graphs[0].params, rel=0.03), "all but biases and normalisations"
    assert oracle(CELL) == 7.0, "a genome or its text"


@pytest.mark.parametrize(("command", "options", "message"), [
    ("true {archi}", {}, r"unknown placeholder \{archi\}; known: arch, graph"), ("", {}, "command is empty"),
    ("no-such-program-here {arch}", {}, "program 'no-such-program-here' was not found"),
    ("echo 'open", {}, "cannot be split"), ("echo 1", {"timeout_s": 0}, "timeout_s must be positive"),
    ("echo 1", {"retries": -1}, "retries must be"), ("echo 1", {"regex": "acc"}, "needs a group"),
    ("echo 1", {"regex": "("}, "not valid"), ("echo 1", {"regex": "(.)", "metric": "acc"}, "no group named 'acc'"),
    ("bash -c 'echo {arch}'", {}, "would be read as code by bash"),
    ("echo '{arch}'", {"shell": True}, "is in quotes"), ('echo "x {arch}"', {"shell": True}, "is in quotes"),
    ("echo \\{arch}", {"shell": True}, "is in quotes"), ("echo `echo {arch}`", {"shell": True}, "cannot be used beside"),
    ('echo "$(echo "{arch}")"', {"shell": True}, "cannot be used beside"),
    ("cat <<E\n{arch}\nE", {"shell": True}, "cannot be used beside"), (["echo"], {"shell": True}, "must be one text")])
def test_settings_that_cannot_work_are_refused(command: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        CommandOracle(command, **options)


def test_braces_variables_and_lists_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CommandOracle(["echo", '{"acc": {seed}}'], seed=3)("x") == {"acc": 3.0}, "braces that hold no name are left alone"
    assert CommandOracle("echo {{seed}} {seed}", regex=r"\{seed\} (\d+)")("x") == 0.0
    assert CommandOracle("X=4; echo ${X}{seed}", shell=True)("x") == 40.0
    monkeypatch.setenv("GONE", "1")
    oracle = CommandOracle("echo $CG_SEED${MINE}${GONE}", shell=True, env={"MINE": "5", "GONE": None})
    assert oracle("x") == 5.0
    assert "5" not in json.dumps(oracle.describe()["env"]), "values of the environment may be secret"
    (tmp_path / "here.txt").write_text("8.5\n")
    assert CommandOracle("cat here.txt", cwd=tmp_path)("x") == 8.5


# -- what is read --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("code", "options", "value"), [
    ("print('epoch 1\\n 93.5 \\n\\n')", {}, 93.5),
    ("print('loading\\n' + json.dumps({'acc': 93, 'latency_ms': 4.5, 'note': 'x', 'done': True}))", {},
     {"acc": 93.0, "latency_ms": 4.5}),
    ("print(json.dumps({'acc': 93, 'nan': float('nan')}))", {"metric": "acc"}, 93.0),
    ("print('acc 1\\nacc 2\\nbye')", {"regex": r"^acc (\d+)$"}, 2.0),
    ("print('acc 91.5, 3 ms')", {"regex": r"acc (?P<acc>[\d.]+), (?P<ms>\d+) ms"}, {"acc": 91.5, "ms": 3.0}),
    ("print('acc 91.5, 3 ms')", {"regex": r"acc (?P<acc>[\d.]+), (?P<ms>\d+) ms", "metric": "ms"}, 3.0),
    ("print('x' * 3_000_000); print(1.5)", {}, 1.5),
    ("open(os.environ['CG_OUT'], 'w').write('2.5'); print('not this: 1')", {}, 2.5),
    ("print(int('SECRET' not in os.environ))", {"env": {"SECRET": None}}, 1.0)])
def test_values_are_read(code: str, options: dict[str, Any], value: Any, script: Callable[[str], str]) -> None:
    oracle = CommandOracle(script(code), **options)
    assert oracle("net") == value
    assert isinstance(oracle, Oracle)


@pytest.mark.parametrize(("code", "options", "message", "log"), [
    ("print('garbage'); print('more garbage')", {}, r"no value in the last line of stdout \('more garbage'\)", "garbage"),
    ("", {}, "no value in stdout, which is empty", ""),
    ("print('nan')", {}, "value is nan", "nan"), ("print('{\"acc\": Infinity}')", {}, "acc is inf", "Infinity"),
    ("print('true')", {}, "no value", "true"), ("print('[1]')", {}, "no value", "[1]"), ("print('{}')", {}, "no value", "{}"),
    ("print('{\"a\": \"1\"}')", {}, "no value", "a"),
    ("print('{\"a\": 1}')", {"metric": "acc"}, "no 'acc' in .* it has a", "a"),
    ("print('acc 5')", {"regex": r"loss (\d+)"}, "no value in a match of", "acc 5"),
    ("print('before'); sys.stderr.write('what went wrong'); sys.exit(3)", {}, "exit status 3", "what went wrong"),
    ("print(5); os.kill(os.getpid(), signal.SIGSEGV)", {}, "signal 11", "5"),
    ("open(os.environ['CG_OUT'], 'w').write('{'); print(1)", {}, "no value in the file", "1"),
    ("sys.stdout.buffer.write(b'\\xff\\xfe')", {}, "no value", "�")])
def test_what_is_no_value_is_a_failure_with_its_log(code: str, options: dict[str, Any], message: str, log: str,
                                                    script: Callable[[str], str], tmp_path: Path) -> None:
    oracle = CommandOracle(script(code), folder=tmp_path / "kept", **options)
    with pytest.raises(EvaluationFailed, match=message) as failure:
        oracle("net")
    assert log in failure.value.log
    assert isinstance(failure.value, CGError)
    again = pickle.loads(pickle.dumps(failure.value))
    assert (str(again), again.log) == (str(failure.value), failure.value.log), "as a worker process hands it over"


def test_a_genome_that_no_command_can_take_is_a_failure() -> None:
    with pytest.raises(EvaluationFailed, match="cannot be started"):
        CommandOracle("echo {arch}")("nul \0 character")
    with pytest.raises(EvaluationFailed, match="cannot be started"):
        CommandOracle("echo {arch}")("x" * 300_000)
    assert CommandOracle("echo 1")("x" * 300_000) == 1.0, "not asked for, so not in the environment either"
    with pytest.raises(OracleError, match="no lasting name"):
        CommandOracle("echo 1")(object())


def test_an_old_answer_is_not_taken_for_a_new_one(script: Callable[[str], str], tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = f"""
        if os.path.exists({str(flag)!r}): sys.exit()
        open({str(flag)!r}, "w").close()
        open(sys.argv[1], "w").write("5"); sys.exit(1)
        """
    oracle = CommandOracle(f"{script(code)} {{out}}", folder=tmp_path / "kept")
    with pytest.raises(EvaluationFailed, match="exit status 1"):
        oracle("net")
    with pytest.raises(EvaluationFailed, match="stdout, which is empty"):
        oracle("net")


# -- once, and again -----------------------------------------------------------------------------------------------

COUNTING = """
    with open(sys.argv[1], "a") as f: f.write("x")
    time.sleep(float(sys.argv[3]))
    n = os.path.getsize(sys.argv[1])
    if n <= int(sys.argv[2]): print("not yet"); sys.exit(1)
    print(n)
    """


def test_a_finished_evaluation_is_not_run_again(script: Callable[[str], str], tmp_path: Path) -> None:
    def make(**options: Any) -> CommandOracle:
        return CommandOracle(f"{script(COUNTING)} {tmp_path / 'count'} 0 0 {{seed}}", folder=tmp_path / "kept", **options)
    assert [make()("net"), make()("net"), make(timeout_s=9.0, retries=2)("net")] == [1.0, 1.0, 1.0]
    assert make()("other net") == 2.0
    assert make(seed=1)("net") == 3.0, "another seed is another question"
    assert make(env={"A": "1"})("net") == 4.0
    assert make(env={"A": "2"})("net") == 5.0, "so is another environment"
    assert make()("net") == 1.0
    (make().kept.path("net") / "result.json").write_text("{damaged")
    assert make()("net") == 6.0


def test_isomorphic_genomes_share_an_evaluation(script: Callable[[str], str], tmp_path: Path) -> None:
    space = get_space("nasbench101")
    oracle = CommandOracle(f"{script(COUNTING)} {tmp_path / 'count'} 0 0", space=space, folder=tmp_path / "kept")
    assert [oracle(text) for text in ("4:33:01", "4:33:02", "4:33:10")] == [1.0, 2.0, 1.0], "two parallel branches, swapped"
    assert oracle(space.decode("4:33:01")) == 1.0


def test_failures_are_tried_again_but_nan_is_an_answer(script: Callable[[str], str], tmp_path: Path) -> None:
    call = f"{script(COUNTING)} {tmp_path / 'count'} 2 0"
    with pytest.raises(EvaluationFailed, match="exit status 1"):
        CommandOracle(call, retries=1)("net")
    assert (tmp_path / "count").stat().st_size == 2
    (tmp_path / "count").unlink()
    oracle = CommandOracle(call, retries=2, folder=tmp_path / "kept")
    assert oracle("net") == 3.0
    attempts = (oracle.kept.path("net") / "attempts.txt").read_text()
    assert attempts.count("exit status 1") == attempts.count("not yet") == 2
    call = script("open(sys.argv[1], 'a').write('x'); print('nan')") + f" {tmp_path / 'nan'}"
    with pytest.raises(EvaluationFailed, match="is nan"):
        CommandOracle(call, retries=5)("net")
    assert (tmp_path / "nan").stat().st_size == 1


def test_threads_that_ask_the_same_wait_for_one_answer(script: Callable[[str], str], tmp_path: Path) -> None:
    oracle = CommandOracle(f"{script(COUNTING)} {tmp_path / 'count'} 0 0.3", folder=tmp_path / "kept")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(oracle, ["net"] * 4)) == [1.0] * 4
    begun = time.monotonic()
    other = CommandOracle(f"{script('time.sleep(0.5); print(1)')}", folder=tmp_path / "other")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(other, "abcd")) == [1.0] * 4
    assert time.monotonic() - begun < 1.6, "different networks side by side"


def test_it_can_be_sent_to_another_process(script: Callable[[str], str], tmp_path: Path) -> None:
    oracle = CommandOracle(f"{script(COUNTING)} {tmp_path / 'count'} 0 0", space="nasbench201", folder=tmp_path / "kept")
    assert oracle(CELL) == pickle.loads(pickle.dumps(oracle))(CELL) == 1.0


# -- the end of a command ------------------------------------------------------------------------------------------

HANGS = """
import subprocess
child = subprocess.Popen([sys.executable, "-S", "-c",
                          "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
with open(sys.argv[1] + ".new", "w") as f: f.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
print("started", flush=True)
"""


def pids_of(path: Path, seconds: float = 10.0) -> list[int]:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, "the command did not start"
        time.sleep(0.02)
    return [int(v) for v in path.read_text().split()]


@pytest.mark.parametrize("ignore", [False, True])
def test_a_command_that_hangs_is_ended_with_its_child(ignore: bool, script: Callable[[str], str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evo_search._process.GRACE_S", 0.3)
    code = HANGS + ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignore else "") + "time.sleep(60)\n"
    begun = time.monotonic()
    with pytest.raises(EvaluationFailed, match=r"ended after 1\.5 s") as failure:
        CommandOracle(f"{script(code)} {tmp_path / 'pids'}", timeout_s=1.5)("net")
    assert time.monotonic() - begun < 6
    assert "started" in failure.value.log
    pids = pids_of(tmp_path / "pids")
    assert [gone(p) for p in pids] == [True, True]


def test_children_do_not_outlive_a_command_that_ends_well(script: Callable[[str], str], tmp_path: Path) -> None:
    code = HANGS + "print(5)\n"
    assert CommandOracle(f"{script(code)} {tmp_path / 'pids'}", timeout_s=30)("net") == 5.0
    assert [gone(p) for p in pids_of(tmp_path / "pids")] == [True, True]


INTERRUPTED = """
import signal, sys
from evo_search.command import CommandOracle
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests were started in the background
try:
    CommandOracle(sys.argv[1], folder=sys.argv[2])("net")
except KeyboardInterrupt:
    print("interrupted")
"""


@contextmanager
def asked(call: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that asks a CommandOracle."""
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, call, str(folder)], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_the_command_and_passes_on(script: Callable[[str], str], tmp_path: Path) -> None:
    with asked(f"{script(HANGS + 'time.sleep(60)')} {tmp_path / 'pids'}", tmp_path / "kept") as run:
        pids = pids_of(tmp_path / "pids", 30)
        run.send_signal(signal.SIGINT)
        assert run.communicate(timeout=20)[0] == "interrupted\n"
    assert [gone(p) for p in pids] == [True, True]


def test_the_command_of_a_killed_search_is_ended_before_it_runs_again(script: Callable[[str], str], tmp_path: Path) -> None:
    code = HANGS + f"if not os.path.exists({str(tmp_path / 'quick')!r}): time.sleep(60)\nprint(4)\n"
    call = f"{script(code)} {tmp_path / 'pids'}"
    with asked(call, tmp_path / "kept") as run:
        pids = pids_of(tmp_path / "pids", 30)
        run.kill()
    os.kill(pids[0], 0)  # still there
    (tmp_path / "quick").touch()
    assert CommandOracle(call, folder=tmp_path / "kept")("net") == 4.0
    assert [gone(p) for p in pids] == [True, True]


def test_the_main_thread_can_interrupt_the_others(script: Callable[[str], str], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evo_search._process.GRACE_S", 0.3)
    code = HANGS + "time.sleep(60)\n"
    oracle = CommandOracle(f"{script(code)} {tmp_path / 'pids'}")
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            oracle("net")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    pids = pids_of(tmp_path / "pids")
    interrupt_all()
    thread.join(10)
    assert [type(e) for e in raised] == [KeyboardInterrupt]
    assert [gone(p) for p in pids] == [True, True]


# -- in a search ---------------------------------------------------------------------------------------------------

def test_a_search_goes_on_after_failures(script: Callable[[str], str], tmp_path: Path) -> None:
    """The value of a network is the length of its text, but some crash, hang or are NaN."""
    call = script("""
        import zlib
        kind = zlib.crc32(sys.argv[1].encode()) % 8
        if kind in (0, 1): sys.exit("no memory")
        if kind == 2: time.sleep(60)
        print("nan" if kind in (3, 4) else len(sys.argv[1]))
        """)
    oracle = oracle_from_options("nasbench201", command=f"{call} {{arch}}", folder=tmp_path / "kept", timeout_s=2.0)
    found = random_search(get_space("nasbench201"), oracle, budget=10, seed=5)
    kinds = {q.genome: zlib.crc32(q.genome.encode()) % 8 for q in found.history.queries}
    assert len(kinds) == 10
    assert {0, 2, 3} <= set(kinds.values()), "the seed meets every failure"
    for q in found.history.queries:
        wanted = {0: "exit status 1", 1: "exit status 1", 2: "ended after 2 s", 3: "is nan", 4: "is nan"}.get(kinds[q.genome])
        assert (q.status, q.value) == (("ok", len(q.genome)) if wanted is None else ("failed", None))
        assert wanted is None or wanted in q.error
    assert found.best_value == max(len(g) for g, k in kinds.items() if k > 4)


def test_options_of_the_command_line_make_oracles() -> None:
    made = oracle_from_options("nasbench201", command="echo {seed}", seed=4, retries=2, timeout_s=5.0)
    assert isinstance(made, CommandOracle)
    assert (made.seed, made.retries, made.timeout_s, made(CELL)) == (4, 2, 5.0, 4.0)
    for options, message in (({}, "either --oracle-cmd or --train"), ({"command": "a", "train": "b"}, "either --oracle-cmd"),
                             ({"command": "echo", "epochs": 3}, "--epochs belongs to --train"),
                             ({"train": "x.npz", "timeout_s": 3.0}, "--timeout belongs to --oracle-cmd"),
                             ({"train": "x.npz", "shell": True}, "--shell belongs to --oracle-cmd")):
        with pytest.raises(OracleError, match=message):
            oracle_from_options("nasbench201", **options)
