"""A finished corpus, opened: by id, or one after the other in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.finishing import read_manifest, sha256_of
from speechtok.corpus.plan import PLAN, Plan
from speechtok.corpus.table import cells, read_about, tokens_of
from speechtok.errors import TokenFileError
from speechtok.files import StrPath
from speechtok.tokenfile import TokenValue


class TokenCorpus(Mapping[str, TokenValue]):
    """Ids and their tokens, in the order of the source; ``items`` streams, ``[id]`` reads one group of rows.

    ``len`` and iteration over ids cost one column of every shard, once. The tokens carry the fingerprint of the
    tokenizer, which refuses to decode those of another.

    Raises:
        TokenFileError: no finished corpus, damaged, or with a shard of another tokenizer.
    """

    def __init__(self, folder: StrPath):
        self.folder = Path(folder)
        self.plan = Plan.load(self.folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest["plan"] != sha256_of(self.folder / PLAN):
            raise TokenFileError(f"{self.folder}: its plan has changed since; run `speechtok tokenize` again")
        self.shards = tuple(self.folder / row["file"] for row in self.manifest["shards"])
        for path in self.shards:
            self._require_own(path)
        self._group: tuple[int, int, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer that made the tokens."""
        return self.plan.fingerprint

    @property
    def tokenizer(self) -> str:
        """Its name."""
        return self.plan.header["tokenizer"]

    @property
    def columns(self) -> tuple[str, ...]:
        """What was carried over from the source, such as speaker and text."""
        return tuple(self.plan.columns)

    @property
    def seconds(self) -> float:
        """Duration of all audio."""
        return self.manifest["seconds"]

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, without those of recordings that failed."""
        return tuple(self._places)

    def __len__(self) -> int:
        return self.manifest["rows"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> TokenValue:
        """The tokens of an id; raises KeyError where there is none."""
        return self._tokens(self._row(name))

    def row(self, name: str) -> dict[str, Any]:
        """The carried columns of an id; raises KeyError where there is none."""
        row = self._row(name)
        return {column: row[column] for column in self.columns}

    def items(self) -> Iterator[tuple[str, TokenValue]]:  # type: ignore[override]
        """Ids and tokens, one group of rows in memory at a time."""
        for row in self._rows():
            yield row["id"], self._tokens(row)

    def values(self) -> Iterator[TokenValue]:  # type: ignore[override]
        """Tokens, likewise."""
        return (tokens for _, tokens in self.items())

    def rows(self) -> Iterator[tuple[str, TokenValue, dict[str, Any]]]:
        """Ids, tokens and carried columns, likewise."""
        for row in self._rows():
            yield row["id"], self._tokens(row), {column: row[column] for column in self.columns}

    def verify(self) -> None:
        """Read every byte and compare checksums, numbers of rows and ids.

        Raises:
            TokenFileError: names the first shard that is not what the manifest says.
        """
        for path, row in zip(self.shards, self.manifest["shards"], strict=True):
            if sha256_of(path) != row["sha256"]:
                raise TokenFileError(f"{path}: damaged or altered; remove it and run `speechtok tokenize` again")
        if len(self._places) != self.manifest["rows"]:
            found, wanted = len(self._places), self.manifest["rows"]
            raise TokenFileError(f"{self.folder}: has {found} ids, and its manifest says {wanted}; tokenize again")

    def __repr__(self) -> str:
        return f"TokenCorpus({self.folder}, {self.tokenizer}, {len(self)} recordings, {self.seconds / 3600:.2f} h)"

    @cached_property
    def _places(self) -> dict[str, tuple[int, int, int]]:
        """Shard, group of rows and row within it of every id."""
        places: dict[str, tuple[int, int, int]] = {}
        for shard, path in enumerate(self.shards):
            file = self._open(path)
            for group in range(file.num_row_groups):
                for row, name in enumerate(file.read_row_group(group, columns=["id"])["id"].to_pylist()):
                    if name in places:
                        raise TokenFileError(f"{path}: holds {name!r}, which another row has, too; tokenize again")
                    places[name] = shard, group, row
        return places

    def _row(self, name: str) -> dict[str, Any]:
        shard, group, row = self._places[name]
        if self._group is None or self._group[:2] != (shard, group):
            self._group = shard, group, self._open(self.shards[shard]).read_row_group(group)
        return cells(self._group[2], row)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for path in self.shards:
            file = self._open(path)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                yield from (cells(table, row) for row in range(len(table)))

    def _tokens(self, row: dict[str, Any]) -> TokenValue:
        return tokens_of(row, self.plan.value, self.plan.header)

    def _open(self, path: Path) -> Any:
        try:
            return library("pyarrow.parquet", "corpus").ParquetFile(path)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise TokenFileError(f"{path}: missing or damaged ({error}); run `speechtok tokenize` again") from error

    def _require_own(self, path: Path) -> None:
        header = read_about(path)["header"]
        if header != self.plan.header:
            raise TokenFileError(
                f"{path}: was made by {header.get('tokenizer')} ({header.get('fingerprint')}), and the corpus by"
                f" {self.tokenizer} ({self.fingerprint}); never mix them: remove it and run `speechtok tokenize` again"
            )


def open(folder: StrPath) -> TokenCorpus:
    """A finished corpus of ``speechtok tokenize``; raises TokenFileError as ``TokenCorpus`` does."""
    return TokenCorpus(folder)
