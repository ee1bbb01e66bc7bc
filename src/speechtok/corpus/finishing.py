"""Before and after the work: what is missing, and the manifest and the list of failures when nothing is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.plan import CLAIMS, FORMAT, PLAN, RECORDINGS, SHARDS, SUFFIX, VERSION, Plan, Shard
from speechtok.corpus.table import read_about
from speechtok.errors import ConfigError, TokenFileError
from speechtok.shards.claims import remove_stale
from speechtok.shards.durable import remove_leftovers, write_durably

MANIFEST, FAILURES = "manifest.json", "failures.jsonl"


def missing_shards(folder: Path, plan: Plan) -> list[str]:
    """Names of the shards that are to be made. Files of another plan and leftovers of killed runs are removed.

    Raises:
        ConfigError: the folder has another plan by now, whose files are not touched.
        OutputError: the folder cannot be changed.
    """
    if Plan.load(folder) != plan:
        raise ConfigError(f"{folder}: another run gave it a new plan meanwhile; wait for its end, then start again")
    for place in (folder, folder / RECORDINGS, folder / SHARDS):
        remove_leftovers(place)
    keys = {f"{shard.name}{SUFFIX}": shard.key for shard in plan.shards}
    for path in (folder / SHARDS).glob(f"*{SUFFIX}"):
        if not _is_of(path, keys.get(path.name)):
            path.unlink(missing_ok=True)
    named = {f"{shard.recordings}.jsonl" for shard in plan.shards}
    for path in (folder / RECORDINGS).glob("*.jsonl"):
        if path.name not in named:
            path.unlink(missing_ok=True)
    missing = [shard.name for shard in plan.shards if not shard_path(folder, shard).exists()]
    if missing:
        (folder / MANIFEST).unlink(missing_ok=True)
    return missing


def shard_path(folder: Path, shard: Shard) -> Path:
    """Where a shard lies."""
    return folder / SHARDS / f"{shard.name}{SUFFIX}"


def finish(folder: Path, plan: Plan) -> dict[str, Any]:
    """Write ``failures.jsonl`` and ``manifest.json``, unless they are there; returns the manifest.

    Raises:
        TokenFileError: a shard is missing or damaged.
        OutputError: the folder cannot be written.
    """
    remove_stale(folder / CLAIMS)
    plan_digest = sha256_of(folder / PLAN)
    manifest = folder / MANIFEST
    if manifest.exists():
        held = read_manifest(folder)
        if held["plan"] == plan_digest and (folder / FAILURES).exists():
            return held
    rows = [_shard_entry(folder, shard) for shard in plan.shards]
    failures = [{**failure, "shard": row["shard"]} for row in rows for failure in row.pop("failed")]
    _write_text(folder / FAILURES, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in failures))
    values = {
        "format": FORMAT, "version": VERSION, "value": plan.value, "tokenizer": plan.header["tokenizer"],
        "fingerprint": plan.fingerprint, "plan": plan_digest, "rows": _total(rows, "rows"),
        "samples": _total(rows, "samples"), "seconds": _total(rows, "samples") / plan.header["sample_rate"],
        "failures": len(failures), "shards": rows,
    }  # fmt: skip
    _write_text(manifest, json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    return values


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a finished corpus.

    Raises:
        TokenFileError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or not all(isinstance(row["sha256"], str) for row in values["shards"]):
            raise ValueError("another format")
        return values
    except FileNotFoundError:
        raise TokenFileError(f"{folder}: is no finished corpus; run `speechtok tokenize` to its end first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenFileError(f"{path}: damaged ({error}); remove it and run `speechtok tokenize` again") from error


def _is_of(path: Path, key: str | None) -> bool:
    try:
        return key is not None and read_about(path)["key"] == key
    except TokenFileError:
        return False


def _shard_entry(folder: Path, shard: Shard) -> dict[str, Any]:
    path = shard_path(folder, shard)
    about = read_about(path)
    lengths = library("pyarrow.parquet", "corpus").read_table(path, columns=["num_samples"])["num_samples"].to_pylist()
    return {
        "shard": shard.name, "file": path.relative_to(folder).as_posix(), "sha256": sha256_of(path),
        "bytes": path.stat().st_size, "rows": len(lengths), "samples": sum(lengths),
        "failures": len(about["failures"]), "failed": about["failures"],
    }  # fmt: skip


def _total(rows: Iterable[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _write_text(path: Path, text: str) -> None:
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
