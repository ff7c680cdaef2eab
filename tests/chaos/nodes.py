"""A Ray cluster of several nodes on this machine, controlled by lines on stdin: add, remove N, end."""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start a head and as many further nodes as asked, one processor each; print the address, then obey."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]) - 1)]
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        order, *rest = line.split()
        if order == "add":
            nodes.append(cluster.add_node(num_cpus=1))
        elif order == "remove" and nodes:
            cluster.remove_node(nodes.pop(int(rest[0]) % len(nodes)), allow_graceful=False)
        elif order == "end":
            break
        print(f"nodes {1 + len(nodes)}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
