"""A process that makes shards beside others: ``python -m speechtok.corpus.worker JOB``, the job as JSON.

It takes whatever is missing and not claimed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from speechtok.corpus.encoding import encode_shard
from speechtok.corpus.plan import CLAIMS, SHARDS, SUFFIX, Plan
from speechtok.errors import ConfigError
from speechtok.processes import one_thread
from speechtok.shards.claims import Claims
from speechtok.shards.local import Tell, serve
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

    Args:
        steal: whether claims of others are passed over, by a caller who knows that there are none.
    """
    shards = {shard.name: shard for shard in plan.shards}

    def make(name: str, path: Path) -> None:
        encode_shard(folder, plan, shards[name], tokenizer, path, tell)

    with one_thread():
        for name in work_through(names, folder / SHARDS, SUFFIX, make, Claims(folder / CLAIMS, steal)):
            tell({"event": "shard", "shard": name})


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


def _work_on(argument: str, tell: Tell) -> None:
    job = Job(**json.loads(argument))
    plan = Plan.load(Path(job.folder))
    names = [shard.name for shard in plan.shards]
    tokenizer = loaded(job.model, job.device, plan.settings.precision, plan.fingerprint)
    work(Path(job.folder), plan, names, tokenizer, tell)


if __name__ == "__main__":
    serve(_work_on)
