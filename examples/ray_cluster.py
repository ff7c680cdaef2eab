"""Start a Ray cluster of two nodes on this machine, and run a suite on it as on any other cluster.

    python examples/ray_cluster.py [RESULTS]

On machines of your own, `ray start` takes the place of `Cluster` (docs/howto/cluster.md).
"""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ray.cluster_utils import Cluster

results = sys.argv[1] if len(sys.argv) > 1 else "results-of-cluster"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
try:
    dtbench = str(Path(sys.executable).with_name("dtbench"))
    where = ["--address", cluster.address, "--results", results]
    subprocess.run([dtbench, "run", "--suite", "key-to-door", "--preset", "smoke", *where], check=True)
finally:
    cluster.shutdown()
