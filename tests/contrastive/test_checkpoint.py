"""Encoders on disk: what is saved is loaded, what is damaged or of another version is refused by file name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cg import Graph
from cg.errors import CGError, StorageError
from cg.vocabulary import OPS, VERSION
from contrastive import Encoder, EncoderConfig, list_encoders, load_encoder
from contrastive.checkpoint import CONFIG, WEIGHTS, save_encoder

SMALL = EncoderConfig(name="small", hidden=16, gnn_layers=1, embedding=12)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL).eval()


@pytest.fixture
def folder(encoder: Encoder, tmp_path: Path) -> Path:
    return encoder.save(tmp_path / "deep" / "encoder")


def edit(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / CONFIG).read_text())
    record.update(changes)
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def test_round_trip(encoder: Encoder, folder: Path, small_graphs: list[Graph]) -> None:
    back = load_encoder(folder)
    assert back.config == SMALL
    assert not back.training
    assert np.array_equal(back.embed(small_graphs), encoder.embed(small_graphs))
    assert sorted(os.listdir(folder)) == [CONFIG, WEIGHTS]
    assert np.array_equal(load_encoder(str(folder)).embed(small_graphs[:1]), encoder.embed(small_graphs[:1]))


def test_record_says_what_is_needed_to_trust_it(encoder: Encoder, tmp_path: Path) -> None:
    record = json.loads((save_encoder(encoder, tmp_path, {"seed": 1}) / CONFIG).read_text())
    assert (record["format"], record["vocabulary"], record["operators"]) == (1, VERSION, len(OPS))
    assert record["provenance"] == {"seed": 1}
    assert record["config"]["hidden"] == 16


def test_saving_over_another_encoder_replaces_it(folder: Path, small_graphs: list[Graph]) -> None:
    torch.manual_seed(1)
    other = Encoder(EncoderConfig(hidden=8, gnn_layers=2, embedding=6)).eval()
    other.save(folder)
    assert np.array_equal(load_encoder(folder).embed(small_graphs), other.embed(small_graphs))


@pytest.mark.parametrize(("changes", "message"), [
    ({"vocabulary": VERSION + 1}, rf"trained with operator vocabulary {VERSION + 1} .*this version has {VERSION}"),
    ({"operators": 3}, r"\(3 operators\)"),
    ({"vocabulary": None}, rf"{CONFIG} is not an encoder description: KeyError\('vocabulary'\)"),
    ({"config": {"hiden": 3}}, rf"{CONFIG} is not an encoder description: .*unknown encoder setting 'hiden'"),
    ({"config": {"hidden": "16"}}, "'hidden' must be int, got '16'"),
    ({"config": {"hidden": 15}}, "must be a multiple of heads"),
    ({"config": []}, "is not an encoder description"),
    ({"config": {"hidden": 32, "gnn_layers": 1, "embedding": 12}}, rf"{WEIGHTS} is missing, truncated or does not fit"),
    ({"sha256": "0" * 64}, rf"{WEIGHTS} is corrupt or of another save than {CONFIG}"),
])
def test_description_that_does_not_fit_is_refused(folder: Path, changes: dict, message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(StorageError, match=message) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "\xff"])
def test_unreadable_description_is_refused(folder: Path, text: str) -> None:
    (folder / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=rf"{CONFIG} is not an encoder description"):
        load_encoder(folder)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("keep", [0, 4, 50, 2000, -1])
def test_truncated_weights_are_refused(folder: Path, keep: int, checked: bool) -> None:
    """Also without the checksum, which encoders of an earlier version do not have."""
    if not checked:
        edit(folder, sha256=None)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(StorageError, match=WEIGHTS):
        load_encoder(folder)


def test_one_flipped_bit_of_the_weights_is_refused(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(StorageError, match="corrupt"):
        load_encoder(folder)


def test_half_of_a_save_is_never_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between its two files: new weights beside the old description, which fits them in every shape."""
    from contrastive import checkpoint

    def stop(*_: object) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(checkpoint, "write_text", stop)
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        save_encoder(Encoder(SMALL), folder)
    with pytest.raises(StorageError, match="another save"):
        load_encoder(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(StorageError, match=WEIGHTS):
        load_encoder(folder)


def test_encoder_saved_without_a_checksum_is_loaded(folder: Path, encoder: Encoder, small_graphs: list[Graph]) -> None:
    edit(folder, sha256=None)
    assert np.array_equal(load_encoder(folder).embed(small_graphs[:2]), encoder.embed(small_graphs[:2]))


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CGError, match=r"no encoder 'nothing': not a folder with config\.json, and not one of the shipped ones"):
        load_encoder("nothing")
    with pytest.raises(CGError, match="no encoder"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", list_encoders() or [pytest.param("", marks=pytest.mark.skip("no encoder is shipped"))])
def test_every_shipped_encoder_works(name: str, small_graphs: list[Graph]) -> None:
    e = load_encoder(name)
    out = e.embed(small_graphs)
    assert out.shape == (24, e.config.embedding)
    assert len(np.unique(out, axis=0)) == len({g.digest for g in small_graphs})


def test_full_disk_leaves_the_old_encoder(folder: Path) -> None:
    before = {n: (folder / n).read_bytes() for n in os.listdir(folder)}
    code = ("import resource, sys, torch\nfrom cg.errors import StorageError\nfrom contrastive import Encoder, EncoderConfig\n"
            "e = Encoder(EncoderConfig(hidden=32))\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "try:\n    e.save(sys.argv[1])\nexcept StorageError as error:\n    print('refused', error)")
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True,
                         cwd=Path(__file__).parents[2])
    assert run.stdout.startswith(f"refused cannot write {folder / WEIGHTS}"), run.stderr
    assert {n: (folder / n).read_bytes() for n in os.listdir(folder)} == before
