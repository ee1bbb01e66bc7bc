"""Training in other processes: two that share a batch, and one that is killed again and again."""

import json
import multiprocessing
import os
import random
import socket
import time

import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.train.codec import train
from speechtok.train.devices import Devices
from speechtok.train.recipe import CodecRecipe
from speechtok.train.snapshot import load_snapshot, save_snapshot
from test_train import Toy, assert_same, make_recipe, weights

# One server imports everything once; every process is a fork of it.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["pytest", "speechtok.train.codec", "accelerate", "jsonargparse", "yaml", "torch.utils.tensorboard"]
)
PATIENCE = 300
"""Seconds until a process counts as stuck; a busy machine is slow, not wrong."""


class Unseeded(Toy):
    """A guide that every process builds with weights of its own."""

    def __init__(self):
        super().__init__()
        torch.nn.init.normal_(self.scale, generator=torch.Generator().manual_seed(os.getpid()))


def train_apart(recipe: CodecRecipe, folder, rank: int = 0, world: int = 1, port: int = 0, guided=False) -> None:
    """Train as process ``rank`` of ``world`` and leave its weights beside the checkpoint."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    state = train(recipe, folder, guides=[Unseeded()] if guided else ())
    parts = {name: state.parts[name].state_dict() for name in ("codec", "judge", "guides")}
    save_snapshot(folder / f"rank-{rank}", parts)
    state.devices.close()


def start(*arguments, target=train_apart) -> multiprocessing.Process:
    process = SERVER.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def start_two(recipe, folder, *more, target=train_apart) -> list[multiprocessing.Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(recipe, folder, rank, 2, port, *more, target=target) for rank in range(2)]


def finish(*processes: multiprocessing.Process) -> None:
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_two_processes_do_what_one_does_with_the_whole_batch(corpus):
    revival = ["data.batch=4", "codec.quantizer.revive_below=0.5"]
    # the frame backbone: an untrained SEANet's latents are so alike that rounding decides between codes
    # Adam turns the rounding of a gradient near zero into a step of some size, so the rate says how close is close
    rates = ["optimisation.rate=1e-4", "optimisation.discriminator_rate=1e-4"]
    recipe = make_recipe(corpus, *revival, *rates, "adversary.scale={scales: 1, width: 0.01}")
    for folder in ("one", "two"):
        (corpus / folder).mkdir()
    finish(*start_two(recipe, corpus / "two"), start(recipe, corpus / "one"))
    first, second = (load_snapshot(corpus / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    alone = load_snapshot(corpus / "one" / "rank-0")
    for part in alone:
        for name, tensor in alone[part].items():
            # the frozen linear maps are the result of an SVD, whose rounding depends on the machine's threads
            close = 1e-4 if ".linear." in name else 1e-5
            assert (first[part][name] - tensor).abs().max() <= close * max(1, tensor.abs().max()), name
    ours, theirs = (logged(corpus / folder) for folder in ("two", "one"))
    assert [row["codes/revived"] for row in ours] == [row["codes/revived"] for row in theirs]
    assert any(row["codes/revived"] for row in ours), "without revived codes the common draws were not tried"
    for one, other in zip(ours, theirs, strict=True):  # the size of gradients, to which Adam is blind
        assert one["gradient/norm"] == pytest.approx(other["gradient/norm"], rel=0.05)
        assert one["commitment/mse"] == pytest.approx(other["commitment/mse"], rel=1e-4)


def test_guides_that_every_process_draws_anew_are_shared(corpus):
    recipe = make_recipe(corpus, "weights.guides={semantic/toy: 1.0}", "steps=3", "data.batch=4")
    (corpus / "run").mkdir()
    finish(*start_two(recipe, corpus / "run", True))
    first, second = (load_snapshot(corpus / "run" / f"rank-{rank}") for rank in range(2))
    assert first["guides"]["0.scale"] != 0
    assert_same(first, second)


def test_a_batch_that_cannot_be_shared_is_refused(corpus, monkeypatch):
    recipe = make_recipe(corpus, "data.batch=3")
    whole = Devices.__init__

    def shared(self, *arguments):
        whole(self, *arguments)
        self.processes = 2

    monkeypatch.setattr(Devices, "__init__", shared)
    with pytest.raises(ConfigError, match=r"data\.batch=3"):
        train(recipe, corpus / "run")


def test_killed_at_random_moments_it_ends_as_if_undisturbed(corpus):
    recipe = make_recipe(corpus, "checkpoint_every=1", "validate_every=3", "log_every=1", "steps=8")
    for folder in ("straight", "killed"):
        (corpus / folder).mkdir()
    finish(start(recipe, corpus / "straight"))
    draws, kills = random.Random(0), 0
    while True:
        process = start(recipe, corpus / "killed")
        if not kill_after_checkpoints(process, corpus / "killed/checkpoint.safetensors", draws):
            break
        kills += 1
        assert 0 < weights(corpus / "killed")["step"] <= 8  # whatever the moment, it can be read
    finish(process)
    assert kills >= 2
    assert_same(weights(corpus / "straight"), weights(corpus / "killed"))
    assert rows(corpus / "straight") == rows(corpus / "killed")


def kill_after_checkpoints(process, path, draws: random.Random) -> bool:
    """SIGKILL at a random moment after one to three new checkpoints; False where the process ended before."""
    seen, wanted, last, interval = 0, draws.randint(1, 3), identity(path), 0.05
    clock = time.monotonic()
    while seen < wanted and process.is_alive():
        time.sleep(0.001)
        now = identity(path)
        if now != last:
            interval, clock, last, seen = time.monotonic() - clock, time.monotonic(), now, seen + 1
    process.join(draws.uniform(0, min(interval, 1.0)))
    if not process.is_alive():
        return False
    process.kill()
    process.join(PATIENCE)
    return True


def identity(path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def rows(folder) -> list[dict]:
    """The log without what depends on the clock."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("steps/s", "eta/min")} for line in lines]


def logged(folder) -> list[dict]:
    return [row for row in rows(folder) if row["kind"] == "train"]
