"""A Ray cluster makes the same shards, and goes on when one of its machines is lost."""

import threading

import pytest

from speechtok.corpus.run import tokenize
from speechtok.processes import ONE_THREAD, child_environment
from tiny_corpus import make_sounds, order, tree

pytest.importorskip("pyarrow", reason="pip install 'speechtok[corpus]'")
ray = pytest.importorskip("ray", reason="the cluster needs pip install 'speechtok[ray]'")


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes on this machine, one task each at a time."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    options = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args=options)
    second = made.add_node(**options)
    variables = ONE_THREAD | {"PYTHONPATH": child_environment()["PYTHONPATH"]}
    ray.init(address=made.address, log_to_driver=False, runtime_env={"env_vars": variables})
    yield made, second
    ray.shutdown()
    made.shutdown()


def test_a_cluster_that_loses_a_node_makes_what_one_worker_makes(cluster, folder, tmp_path):
    made, second = cluster
    sounds = make_sounds(tmp_path / "sounds", 24)
    tokenize(order(sounds, tmp_path / "here", folder, size=1), lambda event: None)
    events, lost = [], threading.Event()

    def listen(event):
        events.append(event)
        if event["event"] == "shard" and event["node"] == second.node_id and not lost.is_set():
            lost.set()
            made.remove_node(second, allow_graceful=False)  # SIGKILL, while its next shard is under way

    manifest = tokenize(order(sounds, tmp_path / "there", folder, size=1, workers=None, ray="auto"), listen)
    assert lost.is_set()
    assert (manifest["rows"], manifest["failures"]) == (24, 1)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
