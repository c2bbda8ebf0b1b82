"""Seals: a digest of all of a file's bytes inside the file itself, which other programs read over.

A seal is an entry of the metadata that Parquet and safetensors files may have: `MARK` and the SHA-256 of the file's
name in its store and of all its bytes but the digest's own. So one flipped bit is seen wherever it is, and so is a file
under the name of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ENTRY = "editfleet-seal"
MARK = b"editfleet sha256 "
EMPTY = "0" * 64  # where the digest goes
BLOCK = 1 << 20  # bytes
HEADER_MOST = 100_000_000  # bytes; what the safetensors library takes


def sealed_table(table: pa.Table, name: str) -> bytes:
    """A table as a Parquet file; the metadata of its schema is kept."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({ENTRY: MARK.decode() + EMPTY})
    data = bytearray(sink.getvalue())
    slot = _table_slot(data)
    data[slot: slot + len(EMPTY)] = _digest(data, slot, name).encode()
    return bytes(data)


def damage_of_table(data: bytes, name: str) -> str | None:
    """What is wrong with a sealed Parquet file; None where nothing is."""
    slot = _table_slot(data)
    return _verdict(len(data), slot, data[slot: slot + len(EMPTY)],
                    None if slot < 0 else _digest(data, slot, name))


def seal_tensors(source: Path, target: Path, name: str) -> None:
    """Copies a safetensors file, with a seal. Raises `ValueError` for any other file."""
    header, start = _read_header(source)
    # First, so that the seal is always at the same place; the library leaves the order of entries open.
    metadata = {ENTRY: MARK.decode() + EMPTY,
                **{key: value for key, value in header.pop("__metadata__", {}).items() if key != ENTRY}}
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    with source.open("rb") as old, target.open("w+b") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        old.seek(start)
        shutil.copyfileobj(old, new, BLOCK)
        slot = 8 + text.index(MARK) + len(MARK)
        digest = _digest_of_file(new, slot, name)
        new.seek(slot)
        new.write(digest.encode())


def damage_of_tensors(path: Path, name: str, *, quick: bool = False) -> str | None:
    """What is wrong with a sealed safetensors file; None where nothing is. `quick` looks only whether it is whole.

    Raises `OSError` where it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256)
        slot = head.find(MARK)
        slot = -1 if slot < 0 else slot + len(MARK)
        if not quick:
            return _verdict(size, slot, head[slot: slot + len(EMPTY)],
                            None if slot < 0 else _digest_of_file(file, slot, name))
    try:
        header, start = _read_header(path)
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return f"its header is damaged: {error}"
    return None if slot >= 0 and start + end == size else f"it has {size} bytes and should have {start + end}"


def _table_slot(data: bytes | bytearray) -> int:
    """Where the digest is: entries are after all content, and this one is the last that holds text of ours."""
    found = data.rfind(MARK)
    return -1 if found < 0 else found + len(MARK)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the tensors start."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_MOST:
            raise ValueError(f"'{path}' is no safetensors file")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"'{path}' is no safetensors file")
    return header, 8 + size


def _digest(data: bytes | bytearray, slot: int, name: str) -> str:
    running = hashlib.sha256(f"{name}\n".encode())
    view = memoryview(data)
    running.update(view[:slot])
    running.update(view[slot + len(EMPTY):])
    return running.hexdigest()


def _digest_of_file(file: Any, slot: int, name: str) -> str:
    running = hashlib.sha256(f"{name}\n".encode())
    file.seek(0)
    running.update(file.read(slot))
    file.seek(len(EMPTY), os.SEEK_CUR)
    while block := file.read(BLOCK):
        running.update(block)
    return running.hexdigest()


def _verdict(size: int, slot: int, told: bytes, found: str | None) -> str | None:
    if not size:
        return "it is empty"
    if slot < 0 or found is None:
        return "it has no seal: it is damaged, or was not written by a task"
    return None if told == found.encode() else "its content is not what was written, or is another task's"
