"""Workers on a Ray cluster: a task for each missing shard, on machines that share the folder.

A task that is lost with its machine is started on another one. Shards are written as local workers write them, so the
same files come out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.plan import Plan
from speechtok.corpus.worker import Job, loaded, work
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.processes import ONE_THREAD, child_environment
from speechtok.shards.local import Tell

LOCAL = "local"
"""The address that starts a cluster of this machine alone."""
RETRIES = 10
"""How often a shard is tried again after its machine or its process was lost."""


def run_on_ray(job: Job, plan: Plan, names: list[str], address: str, num_gpus: float, tell: Tell) -> None:
    """Make the named shards on a cluster; tells what happened in a shard when it is done.

    Args:
        address: of the cluster, ``auto`` for the one that this machine belongs to, or ``local``. A connection that is
            open already is used as it is.
        num_gpus: of a task; 0 for the CPU.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
        SpeechtokError: a task said why it cannot go on, or was lost too often.
    """
    ray = library("ray", "ray")
    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    try:
        task = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=RETRIES)(make_shard)
        variables = ONE_THREAD | {"PYTHONPATH": child_environment()["PYTHONPATH"]} if own and address == LOCAL else {}
        if variables:
            task = task.options(runtime_env={"env_vars": variables})
        pending = {task.remote(job, plan.source, name): name for name in names}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                for event in _result(ray, reference, pending.pop(reference)):
                    tell(event)
    finally:
        if own:
            ray.shutdown()


def make_shard(job: Job, source: str, name: str) -> list[dict[str, Any]]:
    """The task: make one shard; returns what there is to tell.

    Args:
        source: digest of the plan's source, by which a plan that was replaced meanwhile is noticed.
    """
    events: list[dict[str, Any]] = []
    folder = Path(job.folder)
    try:
        plan = Plan.load(folder)
        if plan.source != source:
            raise ConfigError(f"{folder}: its plan was replaced while the cluster worked; start the command again")
        tokenizer = loaded(job.model, job.device, plan.settings.precision, plan.fingerprint)
        work(folder, plan, [name], tokenizer, events.append, steal=True)
    except SpeechtokError as error:
        return [{"event": "error", "message": str(error)}]
    node = library("ray", "ray").get_runtime_context().get_node_id()
    return [{**event, "node": node} for event in events]


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(
            address=None if address == LOCAL else address, include_dashboard=None if address != LOCAL else False,
            log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--ray {address}: no such cluster ({reason}); start one with `ray start --head`") from error


def _result(ray: Any, reference: Any, name: str) -> list[dict[str, Any]]:
    try:
        events = ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SpeechtokError(
            f"shard {name} could not be made on the cluster ({reason}); start the command again, nothing is lost"
        ) from error
    for event in events:
        if event["event"] == "error":
            raise SpeechtokError(event["message"])
    return events
