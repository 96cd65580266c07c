"""Hostile files end in a graph or in one clear refusal: no code of theirs runs, no other file is read, no hang, no crash."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hostile import Case, Jail
from hostile_mutations import mutate, parse, serialise

pytest.importorskip("onnx")
import hostile_keras_cases
import hostile_onnx
import hostile_onnx_seeds
import hostile_tensorflow
import hostile_tensorflow_cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes and inotify")
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
TENSORFLOW_CASES = [*hostile_tensorflow_cases.CASES, *hostile_keras_cases.CASES]


def check(jail: Jail, case: Case, folder: Path) -> None:
    found = jail.open(case.write(folder, jail.secrets))
    assert found.good, f"{found.kind}: {found.text}\n{found.trace}"
    if case.says is not None:
        assert found.kind == "refused", found.text
        assert re.search(case.says, found.text), found.text
        assert len(found.text) < 2500


@pytest.fixture(scope="module")
def onnx_jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    with Jail("onnx", hostile_onnx_seeds.write_seeds(tmp_path_factory.mktemp("seeds"))) as jail:
        yield jail


@pytest.fixture(scope="module")
def tensorflow_jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    seeds = hostile_tensorflow.write_seeds(tmp_path_factory.mktemp("seeds"))
    with Jail("tensorflow", [p for p in seeds if p.suffix == ".pb"]) as jail:
        yield jail


@pytest.mark.parametrize("case", hostile_onnx.CASES, ids=lambda c: c.name)
def test_onnx_file(onnx_jail: Jail, case: Case, tmp_path: Path) -> None:
    check(onnx_jail, case, tmp_path)


@pytest.mark.parametrize("model", sorted(hostile_onnx_seeds.SEEDS))
def test_sound_onnx_file_is_a_graph(onnx_jail: Jail, model: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(hostile_onnx_seeds.fixed(model))
    assert onnx_jail.open(tmp_path / "m.onnx").kind == "graph"


@needs_tensorflow
@pytest.mark.slow  # TensorFlow alone takes fifteen seconds to import
@pytest.mark.parametrize("case", TENSORFLOW_CASES, ids=lambda c: c.name)
def test_tensorflow_file(tensorflow_jail: Jail, case: Case, tmp_path: Path) -> None:
    check(tensorflow_jail, case, tmp_path)


@needs_tensorflow
@pytest.mark.slow
def test_sound_tensorflow_file_is_a_graph(tensorflow_jail: Jail, tmp_path: Path) -> None:
    for path in hostile_tensorflow.write_seeds(tmp_path):
        assert tensorflow_jail.open(path).kind == "graph", path


def test_pickle_is_refused_and_the_safe_way_named(tmp_path: Path) -> None:
    with Jail("torch") as jail:
        for case in hostile_keras_cases.PICKLES:
            check(jail, case, tmp_path)


@pytest.mark.slow
def test_damaged_onnx_files(onnx_jail: Jail, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for seed in range(250):
        name = sorted(hostile_onnx_seeds.SEEDS)[seed % len(hostile_onnx_seeds.SEEDS)]
        path.write_bytes(mutate(hostile_onnx_seeds.fixed(name), seed, "protobuf"))
        found = onnx_jail.open(path)
        assert found.good, f"{name}, seed {seed}: {found}"


@needs_tensorflow
@pytest.mark.slow
def test_damaged_tensorflow_files(tensorflow_jail: Jail, tmp_path: Path) -> None:
    for seed in range(250):
        name = sorted(hostile_tensorflow.SEEDS)[seed % len(hostile_tensorflow.SEEDS)]
        path = tmp_path / Path(name).name
        path.write_bytes(mutate(hostile_tensorflow.SEEDS[name](), seed, "keras" if name.endswith(".keras") else "protobuf"))
        found = tensorflow_jail.open(path)
        assert found.good, f"{name}, seed {seed}: {found}"


# -- the jail and the mutations themselves ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rogue() -> Iterator[Jail]:
    with Jail("rogue") as jail:
        yield jail


@pytest.mark.parametrize(("code", "kind", "text"), [
    ("open('SECRETS/secret.txt').read()", "breach", "opened SECRETS/secret.txt"),
    ("import os; os.stat('SECRETS/secret.txt'); os.open('SECRETS/passwd', os.O_RDONLY)", "breach", "passwd"),
    ("import ctypes; ctypes.CDLL(None).fopen(b'SECRETS/secret.txt', b'r')", "breach", "touched secret.txt"),
    ("open(path + '.new', 'w')", "breach", "opened"),
    ("open('/etc/hostname').read()", "breach", "/etc/hostname"),
    ("import os; os.system('true')", "breach", "os.system"),
    ("import subprocess; subprocess.run(['true'])", "breach", "Popen"),
    ("import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)", "breach", "socket.connect"),
    ("import pickle; pickle.loads(b'cos\\ngetcwd\\n.')", "breach", "pickle.find_class"),
    ("exec(compile('1', '/tmp/evil.py', 'exec'))", "breach", "ran code"),
    pytest.param("while True: pass", "timeout", "10.0 s", marks=pytest.mark.slow),
    ("x = bytearray(300 * 2**20)\nfrom extract import ExtractionError\nraise ExtractionError('no')", "memory", "peak"),
    ("bytearray(2**40)", "memory", "MemoryError"),
    ("import os; os.abort()", "crash", "signal 6"),
    ("raise KeyError('bug')", "other", "KeyError"),
    ("from extract import ExtractionError; raise ExtractionError('no')", "refused", "no"),
])
def test_jail_notices(rogue: Jail, tmp_path: Path, code: str, kind: str, text: str) -> None:
    (tmp_path / "code").write_text(code.replace("SECRETS", str(rogue.secrets)))
    found = rogue.open(tmp_path / "code")
    assert found.kind == kind, found
    assert re.search(text.replace("SECRETS", str(rogue.secrets)), found.text), found


def test_parsing_is_undone_by_writing() -> None:
    for name in hostile_onnx_seeds.SEEDS:
        data = hostile_onnx_seeds.fixed(name)
        fields = parse(data)
        assert fields is not None
        assert serialise(fields) == data


def test_mutation_depends_on_the_seed_alone() -> None:
    data = hostile_tensorflow.SEEDS["small.keras"]()
    code = ("import sys, hashlib; sys.path.insert(0, sys.argv[1]); import hostile_tensorflow as t\n"
            "from hostile_mutations import mutate\n"
            "print([hashlib.md5(mutate(t.SEEDS['small.keras'](), s, 'keras')).hexdigest() for s in range(20)])")
    outs = {subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True,
                           check=True).stdout for _ in range(2)}
    assert len(outs) == 1
    assert len({mutate(data, s, "keras") for s in range(20)}) > 15
