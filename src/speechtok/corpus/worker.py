"""A process that makes shards beside others: ``python -m speechtok.corpus.worker JOB``, the job as JSON.

It takes whatever is missing and not claimed, writes what happens to standard output as JSON lines, and ends with its
parent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechtok.corpus.encoding import Tell, encode_shard
from speechtok.corpus.plan import CLAIMS, SHARDS, SUFFIX, Plan
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.processes import end_with_parent
from speechtok.shards.claims import Claims
from speechtok.shards.runner import work_through
from speechtok.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    folder: str
    """Of the corpus; absolute where workers have other working directories."""
    model: str | None
    """For ``speechtok.load``."""
    device: str = "cpu"


def work(folder: Path, plan: Plan, names: list[str], tokenizer: Tokenizer, tell: Tell, steal: bool = False) -> None:
    """Make those of the named shards that are missing, each with one thread of torch.

    Sums of floating-point numbers depend on how many threads share them, so the number of threads is part of what
    decides codes. It is one, however many workers there are.

    Args:
        steal: whether claims of others are passed over, by a caller who knows that there are none.
    """
    shards = {shard.name: shard for shard in plan.shards}

    def make(name: str, path: Path) -> None:
        encode_shard(folder, plan, shards[name], tokenizer, path, tell)

    with one_thread():
        for name in work_through(names, folder / SHARDS, SUFFIX, make, Claims(folder / CLAIMS, steal)):
            tell({"event": "shard", "shard": name})


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch within the body."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def loaded(model: str | None, device: str, precision: str, fingerprint: str) -> Tokenizer:
    """The plan's tokenizer.

    Raises:
        ConfigError: the model is another one here than where the plan was made.
    """
    from speechtok.tokenizers.registry import load

    tokenizer = load(model, device=device, precision=precision)
    if tokenizer.fingerprint != fingerprint:
        raise ConfigError(
            f"{model or tokenizer.name}: is {tokenizer.fingerprint} here and {fingerprint} in the plan; use one model"
            " everywhere"
        )
    return tokenizer


def job_argument(job: Job) -> str:
    """The job as the argument of the program."""
    return json.dumps(asdict(job))


def main() -> int:
    """The program; returns the exit code."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the events
    end_with_parent(sys.stdin.buffer)

    def tell(event: dict[str, Any]) -> None:
        events.write(json.dumps(event, ensure_ascii=False) + "\n")
        events.flush()

    try:
        job = Job(**json.loads(sys.argv[1]))
        folder = Path(job.folder)
        plan = Plan.load(folder)
        names = [shard.name for shard in plan.shards]
        work(folder, plan, names, loaded(job.model, job.device, plan.settings.precision, plan.fingerprint), tell)
    except SpeechtokError as error:
        tell({"event": "error", "message": str(error)})
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that watches the parent sits in a read
