"""From a source to a plan: a new one, the one that is there, or the one that is there brought up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.audio import Audio, probe
from speechtok.corpus.plan import PLAN, Cut, Plan, Settings, Shard, read_recordings, shard_of
from speechtok.corpus.recording import Recording
from speechtok.errors import AudioError, ConfigError
from speechtok.files import make_folder
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens

UPDATES = ("extend", "sync", "redo")
"""What may be done about a source or settings that changed: see ``settle``."""
OWN_COLUMNS = (
    "id", "num_samples", "frames", "codes", "timbre", "features", "ids", "heard", "times",
)  # fmt: skip
"""Names that carried columns cannot have; they get ``source_`` before them."""


def settle(
    folder: Path,
    recordings: Sequence[Recording],
    tokenizer: Tokenizer,
    settings: Settings,
    cut: Cut,
    update: str | None = None,
) -> Plan:
    """The plan of ``folder`` for this source, written there.

    Args:
        update: None refuses whatever differs from the plan that is there. ``extend`` leaves its shards alone and plans
            new ones for ids that are new. ``sync`` also plans the shards anew that hold changed recordings or such as
            are gone. ``redo`` forgets the old plan.

    Raises:
        ConfigError: there is a plan, and the tokenizer, the settings or the source are others.
        TokenFileError: the plan that is there cannot be read.
        OutputError: the folder cannot be written.
    """
    make_folder(folder)
    fresh = _fresh(tokenizer, settings)
    if (folder / PLAN).exists() and update != "redo":
        return _reconcile(folder, Plan.load(folder), recordings, fresh, cut, update)
    plan = _planned(folder, recordings, fresh, cut)
    if update == "redo":
        plan.save(folder)
    elif not plan.save_new(folder):
        return _reconcile(folder, Plan.load(folder), recordings, fresh, cut, update)
    return plan


def _fresh(tokenizer: Tokenizer, settings: Settings) -> Plan:
    """A plan without recordings. What all tokens share is read from the tokens of a second of silence."""
    silence = Audio(np.zeros(tokenizer.sample_rate, np.float32), tokenizer.sample_rate)
    tokens = tokenizer.encode(silence, settings.levels)
    header = {name: getattr(tokens, name) for name in tokens.FIELDS if name != "num_samples"}
    header = {name: list(value) if isinstance(value, tuple) else value for name, value in header.items()}
    return Plan(tokens.FORMAT, header, _payload_type(tokens), settings, {}, "", ())


def _payload_type(tokens: Any) -> str:
    if not isinstance(tokens, Tokens):
        return "uint32" if tokens.payload.dtype.kind in "iu" else str(tokens.payload.dtype)
    return "uint16" if max(tokens.codebook_sizes) <= 1 << 16 else "uint32"


def _planned(folder: Path, recordings: Sequence[Recording], fresh: Plan, cut: Cut) -> Plan:
    recordings = [_renamed(recording) for recording in recordings]
    plan = replace(fresh, columns=_columns(recordings), source=_digest(recordings))
    return replace(plan, shards=tuple(_shards(folder, plan, recordings, cut, 0)))


def _shards(folder: Path, plan: Plan, recordings: Sequence[Recording], cut: Cut, first: int) -> Iterator[Shard]:
    for number, part in enumerate(_cut(recordings, cut), first):
        yield shard_of(f"{number:05d}", part, _identity(plan), folder)


def _identity(plan: Plan) -> str:
    parts = [plan.value, plan.header, plan.payload, asdict(plan.settings), plan.columns]
    return json.dumps(parts, sort_keys=True, ensure_ascii=False)


def _reconcile(
    folder: Path, plan: Plan, recordings: Sequence[Recording], fresh: Plan, cut: Cut, update: str | None
) -> Plan:
    _require_same_tokenizer(folder, plan, fresh)
    recordings = [_renamed(recording) for recording in recordings]
    source = _digest(recordings)
    if source == plan.source:
        return plan
    columns = _columns(recordings)
    if columns != plan.columns:
        raise ConfigError(
            f"{folder}: was made with the columns {sorted(plan.columns)}, and the source now has {sorted(columns)} or"
            " other types in them; give --update redo to make all of it again, or another folder"
        )
    now = {recording.id: recording for recording in recordings}
    before = {shard.name: read_recordings(folder, shard) for shard in plan.shards}
    known = {recording.id: recording for part in before.values() for recording in part}
    new = [recording for recording in recordings if recording.id not in known]
    changed = [name for name, old in known.items() if name in now and now[name] != old]
    gone = [name for name in known if name not in now]
    if update is None:
        raise ConfigError(
            f"{folder}: the source has changed since: {len(new)} new, {len(changed)} changed and {len(gone)} vanished"
            f" recordings, such as {_example(new, changed, gone)!r}; give --update extend to add what is new, sync to"
            " make the shards of changed ones again, too, or redo for everything"
        )
    identity, shards = _identity(plan), list(plan.shards)
    if update == "sync":
        kept = {name: [now[old.id] for old in part if old.id in now] for name, part in before.items()}
        shards = [shard_of(shard.name, kept[shard.name], identity, folder) for shard in shards if kept[shard.name]]
    first = 1 + max((int(shard.name) for shard in plan.shards), default=-1)
    shards += _shards(folder, plan, new, cut, first)
    # With extend the digest is that of the source as it is now, so that the same command goes on without it.
    settled = replace(plan, source=source, shards=tuple(shards))
    settled.save(folder)
    return settled


def _require_same_tokenizer(folder: Path, plan: Plan, fresh: Plan) -> None:
    then, now = plan.header, fresh.header
    redo = "give --update redo to make all of it again, or another folder"
    if then["fingerprint"] != now["fingerprint"]:
        raise ConfigError(
            f"{folder}: was made by {then['tokenizer']} ({then['fingerprint']}), not by {now['tokenizer']}"
            f" ({now['fingerprint']}); {redo}"
        )
    if plan.settings != fresh.settings or then != now or plan.payload != fresh.payload:
        was, is_now = ({**asdict(one.settings), **one.header} for one in (plan, fresh))
        other = next((name for name in was if was[name] != is_now.get(name)), "payload")
        raise ConfigError(f"{folder}: was made with {other} {was.get(other)}, not {is_now.get(other)}; {redo}")


def _example(new: Sequence[Recording], changed: Sequence[str], gone: Sequence[str]) -> str:
    return [*changed, *gone, *(recording.id for recording in new), "another order"][0]


def _cut(recordings: Sequence[Recording], cut: Cut) -> Iterator[list[Recording]]:
    part: list[Recording] = []
    total = 0.0
    for recording in recordings:
        seconds = 0.0 if cut.seconds is None else _seconds(recording)
        if part and (len(part) == cut.size or (cut.seconds is not None and total + seconds > cut.seconds)):
            yield part
            part, total = [], 0.0
        part.append(recording)
        total += seconds
    if part:
        yield part


def _seconds(recording: Recording) -> float:
    """How long it lasts by what the source or the header says; a file without a readable header counts nothing."""
    if recording.length is not None or recording.seconds is not None:
        return recording.length or recording.seconds or 0.0
    if recording.row is not None:
        return 0.0
    try:
        return max(0.0, probe(recording.path).seconds - (recording.start or 0.0))
    except AudioError:
        return 0.0


def _renamed(recording: Recording) -> Recording:
    """Columns under names that the shards have no other use for; what is no plain value as JSON."""
    columns = {f"source_{name}" if name in OWN_COLUMNS else name: value for name, value in recording.columns.items()}
    return replace(recording, columns={name: _plain(value) for name, value in columns.items()})


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


def _columns(recordings: Sequence[Recording]) -> dict[str, str]:
    """Names, in the order of their first appearance, and the narrowest type that holds all values."""
    found: dict[str, set[type]] = {}
    for recording in recordings:
        for name, value in recording.columns.items():
            found.setdefault(name, set()).update(() if value is None else (type(value),))
    return {name: _kind(types) for name, types in found.items()}


def _kind(types: set[type]) -> str:
    kinds = {frozenset({bool}): "bool", frozenset({int}): "int64", frozenset({float}): "double"}
    return kinds.get(frozenset(types), "double" if types == {int, float} else "string")


def _digest(recordings: Sequence[Recording]) -> str:
    total = hashlib.sha256()
    for recording in recordings:
        total.update(f"{recording.line()}\n".encode())
    return total.hexdigest()
