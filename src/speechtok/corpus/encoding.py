"""One shard: its recordings are read, encoded in their order, and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from speechtok.corpus.plan import Plan, Shard, read_recordings
from speechtok.corpus.reading import Heard, read_ahead
from speechtok.corpus.table import Row, write_shard
from speechtok.errors import SpeechtokError
from speechtok.shards.local import Tell
from speechtok.tokenizers.base import Tokenizer

POOL = 8
"""Batches that are read together, so that recordings of similar length can share one."""


def encode_shard(folder: Path, plan: Plan, shard: Shard, tokenizer: Tokenizer, path: Path, tell: Tell) -> None:
    """Write the shard into ``path``. What cannot be read or encoded becomes a failure, with its reason.

    Raises:
        TokenFileError: the list of recordings is damaged.
        TokenError: the tokenizer is not the plan's.
    """
    rows: list[Row] = []
    failures: list[dict[str, str]] = []
    recordings = read_recordings(folder, shard)
    for heard, outcome in _encoded(read_ahead(recordings, tokenizer.sample_rate), plan, tokenizer):
        recording, event = heard.recording, {"event": "recording", "id": heard.recording.id, "shard": shard.name}
        if isinstance(outcome, str):
            reason = outcome if recording.path in outcome else f"{recording.place}: {outcome}"
            failures.append({"id": recording.id, "path": recording.place, "reason": reason})
            tell({**event, "failure": reason, "seconds": 0.0})
        else:
            rows.append(Row(recording.id, outcome, recording.columns))
            tell({**event, "seconds": outcome.seconds, "notes": list(heard.notes)})
    write_shard(path, plan, shard, rows, failures)


def _encoded(heard: Iterable[Heard], plan: Plan, tokenizer: Tokenizer) -> Iterator[tuple[Heard, Any]]:
    """Each recording with its tokens, or the reason why there are none."""
    if plan.settings.batch == 1:
        for one in heard:
            yield one, _alone(one, plan, tokenizer)
        return
    heard = iter(heard)
    while pool := list(islice(heard, plan.settings.batch * POOL)):
        yield from zip(pool, _together(pool, plan, tokenizer), strict=True)


def _together(pool: list[Heard], plan: Plan, tokenizer: Tokenizer) -> list[Any]:
    audios = [one.audio for one in pool if one.audio is not None]
    try:
        found = iter(tokenizer.encode_batch(audios, False, plan.settings.batch, plan.settings.levels))
    except SpeechtokError:  # one of them is at fault; alone, each answers for itself
        return [_alone(one, plan, tokenizer) for one in pool]
    return [_alone(one, plan, tokenizer) if one.audio is None else next(found) for one in pool]


def _alone(one: Heard, plan: Plan, tokenizer: Tokenizer) -> Any:
    if one.failure is not None:
        return one.failure
    try:
        if one.audio is None:
            return tokenizer.encode_file(one.recording.path, plan.settings.levels)
        return tokenizer.encode(one.audio, plan.settings.levels)
    except SpeechtokError as error:
        return str(error)
