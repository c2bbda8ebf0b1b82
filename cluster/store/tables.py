"""Tables as bytes of Parquet, and back."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq


def to_parquet(table: pa.Table, *, text: bool = False) -> bytes:
    """`text`: mostly texts, of which many are the same. Nobody looks for one by its order, and readers know what they
    are: statistics and Arrow's own schema would take as much room as the texts of a task."""
    sink = pa.BufferOutputStream()
    if text:
        pq.write_table(table, sink, compression="zstd", compression_level=9, write_statistics=False, store_schema=False)
    else:
        pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def from_parquet(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Texts that the `schema` wants as a dictionary are one. Raises `pa.ArrowException` or `OSError` for other bytes.
    """
    coded = {field.name for field in schema or () if pa.types.is_dictionary(field.type)}
    if coded:
        coded &= set(pq.read_schema(pa.BufferReader(data)).names)
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(coded)).read(use_threads=False)
