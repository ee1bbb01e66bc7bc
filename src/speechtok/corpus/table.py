"""Tokens as rows of Parquet: one kind of columns for each kind of tokens, and what all rows share in the metadata.

``codes`` is a list of Q lists of N numbers, ``[Q][N]``, which DuckDB, polars and `datasets` read as it is. Written with
fixed settings, equal rows give equal bytes (of one release of pyarrow).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speechtok.corpus.extras import library
from speechtok.corpus.plan import FORMAT, VERSION, Plan, Shard
from speechtok.errors import TokenError, TokenFileError
from speechtok.soft_tokens import SoftTokens
from speechtok.text_tokens import TextTokens
from speechtok.tokenfile import TokenValue
from speechtok.tokens import Tokens

META = b"speechtok"
ROWS = 128
"""Rows of a group, which is what a reader of one row has to read."""
TYPES = {"string": "string", "double": "float64", "int64": "int64", "bool": "bool_"}
"""Types of carried columns, as pyarrow calls them."""
MATRICES = ("codes", "features")
"""Columns whose cells are lists of lists of one length."""


class Row(NamedTuple):
    """One utterance of a shard."""

    id: str
    tokens: TokenValue
    columns: dict[str, Any]


class Kind(NamedTuple):
    """How one kind of tokens lies in columns."""

    value: type[TokenValue]
    columns: Callable[[Any, str], dict[str, Any]]
    """Types of the columns, for a type of the numbers."""
    cells: Callable[[Any], dict[str, Any]]
    tokens: Callable[[dict[str, Any], dict[str, Any]], TokenValue]
    """From a row and the header."""


def _rows(array: np.ndarray) -> list[np.ndarray]:
    return list(np.ascontiguousarray(array))


CODES = Kind(
    Tokens,
    lambda pa, kind: {
        "frames": pa.int64(),
        "codes": pa.list_(pa.list_(getattr(pa, kind)())),
        "timbre": pa.list_(pa.float32()),
    },
    lambda tokens: {"frames": tokens.frames, "codes": _rows(tokens.packed), "timbre": tokens.timbre},
    lambda row, header: Tokens(
        codes=row["codes"],
        timbre=None if row["timbre"] is None else np.array(row["timbre"], np.float32),
        num_samples=row["num_samples"],
        **header,
    ),
)
SOFT = Kind(
    SoftTokens,
    lambda pa, kind: {"frames": pa.int64(), "features": pa.list_(pa.list_(getattr(pa, kind)()))},
    lambda tokens: {"frames": tokens.frames, "features": _rows(tokens.features)},
    lambda row, header: SoftTokens(features=row["features"], num_samples=row["num_samples"], **header),
)
TEXT = Kind(
    TextTokens,
    lambda pa, kind: {
        "ids": pa.list_(getattr(pa, kind)()),
        "heard": pa.string(),
        "times": pa.list_(pa.list_(pa.int64())),
    },
    lambda tokens: {
        "ids": tokens.ids,
        "heard": tokens.text,
        "times": None if tokens.times is None else _rows(tokens.times),
    },
    lambda row, header: TextTokens(
        ids=np.array(row["ids"], np.int64),
        text=row["heard"],
        times=None if row["times"] is None else np.array(row["times"], np.int64).reshape(-1, 2),
        num_samples=row["num_samples"],
        **header,
    ),
)
KINDS = {kind.value.FORMAT: kind for kind in (CODES, SOFT, TEXT)}


def write_shard(path: Path, plan: Plan, shard: Shard, rows: Sequence[Row], failures: Sequence[dict[str, str]]) -> None:
    """Write one shard, with what failed in its metadata.

    Raises:
        TokenError: tokens whose header is not the plan's.
    """
    pa, pq = library("pyarrow", "corpus"), library("pyarrow.parquet", "corpus")
    for row in rows:
        _require_header(row, plan)
    schema = _schema(pa, plan, shard, failures)
    kind = KINDS[plan.value]
    cells = [
        {"id": row.id, "num_samples": row.tokens.num_samples, **kind.cells(row.tokens), **row.columns} for row in rows
    ]
    data = {field.name: [_cell(one.get(field.name), field.type, pa) for one in cells] for field in schema}
    pq.write_table(
        pa.table(data, schema=schema), path, row_group_size=ROWS, compression="zstd", compression_level=3,
        write_statistics=["id", "num_samples"], data_page_version="1.0", version="2.6",
    )  # fmt: skip


def _cell(value: Any, kind: Any, pa: Any) -> Any:
    """What pyarrow takes for a cell: texts where a column of texts also had other values."""
    if value is not None and kind == pa.string() and not isinstance(value, str):
        return json.dumps(value)
    return value


def _require_header(row: Row, plan: Plan) -> None:
    for name, wanted in plan.header.items():
        value = getattr(row.tokens, name)
        if (list(value) if isinstance(value, tuple) else value) != wanted:
            raise TokenError(f"{row.id}: its tokens have {name} {value}, and the corpus {wanted}; use one tokenizer")


def _schema(pa: Any, plan: Plan, shard: Shard, failures: Sequence[dict[str, str]]) -> Any:
    about = {
        "format": FORMAT, "version": VERSION, "value": plan.value, "header": plan.header, "payload": plan.payload,
        "columns": plan.columns, "shard": shard.name, "key": shard.key, "failures": list(failures),
    }  # fmt: skip
    own = {"id": pa.string(), "num_samples": pa.int64(), **KINDS[plan.value].columns(pa, plan.payload)}
    carried = {name: getattr(pa, TYPES[kind])() for name, kind in plan.columns.items()}
    metadata = {META: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}
    metadata[b"fingerprint"] = plan.fingerprint.encode()
    return pa.schema({**own, **carried}, metadata=metadata)


def read_about(path: Path) -> dict[str, Any]:
    """What the metadata of a shard say.

    Raises:
        TokenFileError: no such file, damaged, or no shard of tokens.
    """
    pq = library("pyarrow.parquet", "corpus")
    try:
        about = json.loads(pq.read_schema(path).metadata[META])
        if about["format"] != FORMAT:
            raise ValueError("another format")
        return about
    except FileNotFoundError:
        raise TokenFileError(f"{path}: no such shard; run `speechtok tokenize` again") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenFileError(f"{path}: damaged, or no shard of tokens ({error}); tokenize again") from error


def cells(table: Any, row: int) -> dict[str, Any]:
    """One row of a table; the numbers of codes and features as an array, ``[Q, N]`` or ``[N, D]``."""
    found = {}
    for name in table.column_names:
        cell = table.column(name)[row]
        if name in MATRICES:
            numbers = cell.values.flatten().to_numpy(zero_copy_only=False)
            found[name] = numbers.reshape(len(cell.values), -1)
        else:
            found[name] = cell.as_py()
    return found


def tokens_of(row: dict[str, Any], value: str, header: dict[str, Any]) -> TokenValue:
    """The tokens of a row.

    Raises:
        TokenFileError: the row contradicts itself.
    """
    try:
        return KINDS[value].tokens(row, header)
    except (TokenError, TypeError, ValueError, KeyError) as error:
        raise TokenFileError(f"{row.get('id')!r} contradicts itself ({error}); tokenize again") from error
