"""Sequences as a dataset of the library `datasets`, for trainers that read those."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.checks import whole
from speechtok.errors import ConfigError, TokenError, TokenFileError
from speechtok.files import StrPath, atomic_folder
from speechtok.layouts.arrays import TokenArrays, write_arrays
from speechtok.layouts.base import Layout
from speechtok.layouts.jsonfile import read_json, require_format
from speechtok.layouts.saved import layout_from_dict, layout_to_dict
from speechtok.tokens import Tokens

FORMAT, VERSION = "speechtok.dataset", 1
LAYOUT_FILE = "speechtok.json"


def to_dataset(arrays: TokenArrays) -> Any:
    """A ``datasets.Dataset`` that reads the mapped file: one row per utterance.

    Columns: ``id``; ``input_ids``, a list of steps, or of lists of Q ids for parallel layouts; ``num_samples``;
    ``timbre``, a list of numbers or None.

    Raises ConfigError where `datasets` is not installed.
    """
    datasets, arrow = _library("datasets"), _library("pyarrow")
    steps = arrow.array(arrays.array.reshape(-1))
    if arrays.layout.parallel:
        steps = arrow.FixedSizeListArray.from_arrays(steps, arrays.layout.streams)
    timbres = [None if one is None else one.tolist() for one in arrays.timbres]
    table = arrow.table(
        {
            "id": arrow.array(arrays.ids, arrow.string()),
            "input_ids": arrow.LargeListArray.from_arrays(arrow.array(arrays.offsets), steps),
            "num_samples": arrow.array(arrays.num_samples, arrow.int64()),
            "timbre": arrow.array(timbres, arrow.list_(arrow.float32())),
        }
    )
    return datasets.Dataset(table)


def write_dataset(
    folder: StrPath, layout: Layout, utterances: Iterable[tuple[str, Tokens]], *, bos: bool = True, eos: bool = True
) -> Any:
    """Write a dataset folder, whole or not at all, and load it; ``datasets.load_from_disk`` reads it, too.

    Args:
        folder: does not exist yet, or is empty.
        layout: what the sequences shall be; written into the folder as ``speechtok.json``.
        utterances: ids, each of its own, and tokens.
        bos: start each utterance with one.
        eos: end each with one.

    Raises:
        OutputError: the folder exists and is not empty, or cannot be written.
        ConfigError: `datasets` is not installed, or as ``write_arrays``.
        TokenFileError: tokens that do not fit the layout's vocabulary.
    """
    folder = Path(folder)
    _library("datasets")
    with atomic_folder(folder) as made, tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        arrays = write_arrays(Path(scratch) / "all.bin", layout, utterances, bos=bos, eos=eos)
        to_dataset(arrays).save_to_disk(str(made))
        values = {"format": FORMAT, "version": VERSION, **layout_to_dict(layout)}
        (made / LAYOUT_FILE).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_dataset(folder)[0]


def read_dataset(folder: StrPath, *, fingerprint: str | None = None) -> tuple[Any, Layout]:
    """The dataset of a folder, and the layout that decodes its rows.

    Raises TokenFileError: no such folder, foreign, too new, damaged, or of another tokenizer than ``fingerprint``.
    """
    index = Path(folder) / LAYOUT_FILE
    values = read_json(index)
    require_format(values, FORMAT, VERSION, str(index), "write it again with `speechtok layout`")
    layout = layout_from_dict(values, str(index), fingerprint)
    datasets = _library("datasets")
    try:
        return datasets.load_from_disk(str(folder)), layout
    except (OSError, ValueError, KeyError, TypeError) as error:  # what the library and Arrow raise for damage
        raise TokenFileError(f"{folder}: cannot be read as a dataset ({error}); write it again") from error


def row_tokens(row: dict[str, Any], layout: Layout) -> Tokens:
    """Exactly the tokens of a row that ``write_dataset`` wrote; raises TokenError where it is no such row."""
    try:
        ids, num_samples, timbre = np.array(row["input_ids"]), row["num_samples"], row["timbre"]
        timbre = None if timbre is None else np.array(timbre, np.float32)
    except KeyError as error:
        raise TokenError(f"a row lacks the column {error}; take rows of a dataset that write_dataset wrote") from error
    except (TypeError, ValueError) as error:
        raise TokenError(f"a row holds no ids or no timbre ({error}); write the dataset again") from error
    return layout.decode(ids.T, num_samples=whole("num_samples", num_samples, 1), timbre=timbre)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError("datasets need the library of that name; pip install 'speechtok[layouts]'") from error
