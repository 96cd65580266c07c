"""Seeded damage to files: bytes flipped, cut, repeated; protobuf messages and JSON changed field by field.

Knows the protobuf wire format, not the messages, so it serves ONNX, GraphDef and SavedModel alike. Same seed, same bytes.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

MOST = 4_000_000  # bytes of a mutated file
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 255, 1000, 4097, 65_536, 10**6, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1,
           2**63, 2**64 - 1, 2**64 - 2)  # the last two are -1 and -2
TEXTS = (b"", b"\x00", b"A" * 5000, b"../../../etc/passwd", b"/etc/passwd", b"\xff\xfe\xfd", b"__import__('os').system('id')",
         b"a/b:0", b":0", b"^a", b"a:99999999999", "Ünï×".encode(), b"-1", b"0")
Field = list[Any]  # [number, wire type, value]; value of a message: list of fields


def mutate(data: bytes, seed: int, kind: str) -> bytes:
    """``data`` damaged; ``kind`` is "protobuf" or "keras" (a zip of JSON files)."""
    rng = random.Random(seed)
    way = rng.random()
    if kind == "keras":
        out = _keras(data, rng) if way < 0.75 else _bytes(data, rng)
    elif way < 0.72:
        out = _message(data, rng)
    elif way < 0.82:
        out = _bytes(_message(data, rng), rng)
    else:
        out = _bytes(data, rng)
    return out[:MOST]


# ---- bytes --------------------------------------------------------------------------------------------------------


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16, 64))):
        if not out:
            break
        i = rng.randrange(len(out))
        j = min(len(out), i + rng.choice((1, 2, 4, 16, 256)))
        what = rng.randrange(6)
        if what == 0:
            out[i] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[i] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what == 2:
            del out[i:j]
        elif what == 3:
            out[i:i] = out[i:j] * rng.choice((1, 2, 50))
        elif what == 4:
            out[i:j] = rng.randbytes(j - i)
        elif rng.random() < 0.3:
            del out[i:]  # cut short
    return bytes(out)


# ---- protobuf -----------------------------------------------------------------------------------------------------


def parse(data: bytes, depth: int = 0) -> list[Field] | None:
    """Fields of a message, messages in it parsed too; ``None`` if ``data`` cannot be a message."""
    fields, at = list[Field](), 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if at < 0 or not 0 < number < 2**20:
            return None
        if wire == 0:
            value, at = _varint(data, at)
            if at < 0:
                return None
            fields.append([number, 0, value])
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                return None
            fields.append([number, wire, data[at:at + size]])
            at += size
        elif wire == 2:
            size, at = _varint(data, at)
            if at < 0 or at + size > len(data):
                return None
            part = data[at:at + size]
            inner = parse(part, depth + 1) if size > 1 and depth < 20 and not _is_text(part) else None
            fields.append([number, 2, part if inner is None else inner])
            at += size
        else:
            return None
    return fields


def serialise(fields: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += _as_varint(number << 3 | wire)
        if wire == 0:
            out += _as_varint(value)
        elif wire == 2:
            part = serialise(value) if isinstance(value, list) else value
            out += _as_varint(len(part)) + part
        else:
            out += value
        if len(out) > MOST:
            break
    return bytes(out)


def _message(data: bytes, rng: random.Random) -> bytes:
    root = parse(data)
    if not root:
        return _bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        places, texts = list[tuple[list[Field], int]](), list[bytes]()
        todo = [root]
        while todo:
            fields = todo.pop()
            for i, (_, _, value) in enumerate(fields):
                places.append((fields, i))
                if isinstance(value, list):
                    todo.append(value)
                elif isinstance(value, bytes) and 0 < len(value) < 200:
                    texts.append(value)
        if not places:
            break
        fields, i = rng.choice(places)
        f = fields[i]
        what = rng.randrange(10)
        if what == 0:
            del fields[i]
        elif what == 1:
            copies = rng.choice((1, 1, 2, 30, 1000))
            fields[i:i] = [f] * min(copies, 1 + 200_000 // (1 + len(serialise([f]))))
        elif what == 2:
            j = rng.randrange(len(fields))
            fields[i], fields[j] = fields[j], fields[i]
        elif what == 3:  # something from elsewhere, perhaps itself inside itself
            other, k = rng.choice(places)
            part = other[k][2]
            f[1:] = [other[k][1], parse(serialise(part)) or [] if isinstance(part, list) else part]
        elif what == 4:
            f[0] = rng.choice((1, 2, 3, 5, 8, f[0] + 1, 1000))
        elif f[1] == 0:
            f[2] = rng.choice((rng.choice(NUMBERS), f[2] ^ 1 << rng.randrange(64), rng.randrange(300)))
        elif f[1] in (1, 5):
            number = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), rng.uniform(-4, 4)))
            f[2] = struct.pack("<d" if f[1] == 1 else "<f", number)
        elif isinstance(f[2], bytes):
            if f[2] and rng.random() < 0.3:
                f[2] = _bytes(f[2], rng)
            else:
                f[2] = rng.choice(texts) if texts and rng.random() < 0.8 else rng.choice(TEXTS)
        elif rng.random() < 0.3:
            rng.shuffle(f[2])
    return serialise(root)


def _is_text(part: bytes) -> bool:
    return all(32 <= b < 127 for b in part)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 127) << shift
        at += 1
        if not data[at - 1] & 128:
            return value & (2**64 - 1), at
        shift += 7
    return 0, -1


def _as_varint(value: int) -> bytes:
    out, value = bytearray(), value & (2**64 - 1)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- Keras archives -------------------------------------------------------------------------------------------------

WORDS = ("", "builtins", "os", "subprocess", "system", "eval", "Lambda", "keras.layers", "__class__", "..",
         "TorchModuleWrapper", "/etc/passwd", "float32", "relu", "same", "inf")


def _keras(data: bytes, rng: random.Random) -> bytes:
    """The archive with a changed ``config.json``, a damaged member, or a member more or less."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    name = "config.json" if rng.random() < 0.8 else rng.choice(sorted(members))
    way = rng.random()
    if name.endswith(".json") and way < 0.9:
        members[name] = _json(members[name], rng)
    elif way < 0.95:
        members[name] = _bytes(members[name], rng)
    elif rng.random() < 0.5:
        del members[name]
    else:
        members["../" * rng.randrange(4) + "evil.txt"] = b"x"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in members:
            archive.writestr(zipfile.ZipInfo(n), members[n])  # no clock: the same bytes for the same seed
    return out.getvalue()


def _json(text: bytes, rng: random.Random) -> bytes:
    root = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        places, values = list[tuple[Any, Any]](), list[Any]()
        todo = [root]
        while todo:
            value = todo.pop()
            inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            for key, part in inside:
                places.append((value, key))
                values.append(part)
                if isinstance(part, dict | list):
                    todo.append(part)
        if not places:
            break
        holder, key = rng.choice(places)
        what = rng.randrange(6)
        if what == 0:
            del holder[key]
        elif what == 1:
            holder[key] = json.loads(json.dumps(rng.choice(values)))
        elif what == 2:
            holder[key] = rng.choice((None, True, [], {}, "x" * 3000, 1.5, -1, 0, 2**31, 2**62, 10**30, 1e300))
        elif what == 3 and isinstance(holder, list):
            holder += [json.loads(json.dumps(holder[key]))] * rng.choice((1, 5, 300))
        elif isinstance(holder[key], str):
            texts = [v for v in values if isinstance(v, str)]
            holder[key] = rng.choice(texts) if rng.random() < 0.6 else rng.choice(WORDS)
        elif isinstance(holder[key], int | float):
            holder[key] = rng.choice((0, 1, 2, 3, -1, 7, 2**20, 2**40, 2**62, -(2**62)))
        else:
            holder[key] = [holder[key]]
    return json.dumps(root).encode()
