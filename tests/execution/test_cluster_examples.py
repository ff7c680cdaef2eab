"""The examples for clusters: what Ray's launcher reads, and a Slurm job that stops in time and comes back."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SLURM = EXAMPLES / "slurm.sh"


def test_rays_launcher_accepts_the_cluster() -> None:
    document = yaml.safe_load((EXAMPLES / "ray-cluster.yaml").read_text())
    validate_config(prepare_config(document))
    for start in (document["head_start_ray_commands"], document["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]


def test_the_clouds_lines_are_yaml_too() -> None:
    lines = (EXAMPLES / "ray-cluster.yaml").read_text().splitlines()
    first = lines.index("# provider: {type: aws, region: us-west-2}")
    cloud = [line.removeprefix("# ") for line in lines[first : lines.index("", first)]]
    assert set(yaml.safe_load("\n".join(cloud))) == {"provider", "available_node_types", "head_node_type"}


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)


STUBS = {
    "ray": "exit 0",
    "srun": 'echo "$@" >> srun.log; exec sleep 600',
    "python": "exit 0",
    "hostname": '[ "${1:-}" ] && echo 10.0.0.1 || echo node-a',
    "scontrol": 'if [ "$1" = show ]; then echo node-a; echo node-b; else echo "$@" >> scontrol.log; fi',
    "dtbench": 'trap "sleep 0.3; exit 130" TERM; echo "$@" > dtbench.log; for i in $(seq 6000); do sleep 0.1; done',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which Slurm, Ray and dtbench are a few lines each."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name, script in STUBS.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    job = {"JOB_ID": "7", "JOB_NODELIST": "node-[a-b]", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "4"}
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        **{f"SLURM_{name}": value for name, value in job.items()},
    }


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_a_slurm_job_that_is_told_to_end_stops_dtbench_and_goes_back_into_the_queue(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    job = subprocess.Popen(["bash", str(SLURM), "--suite", "d4rl"], env=slurm, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while lines(tmp_path / "dtbench.log") + lines(tmp_path / "srun.log") < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=200) == 130
    finally:
        os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "dtbench.log").read_text() == "run --suite d4rl --address 10.0.0.1:20007\n"
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    head, worker = (tmp_path / "srun.log").read_text().splitlines()
    assert "--nodelist=node-a" in head
    assert "--head --node-ip-address=10.0.0.1 --port=20007" in head
    assert "--nodelist=node-b" in worker
    assert "--address=10.0.0.1:20007" in worker


@pytest.mark.parametrize("code", [0, 1])
def test_a_slurm_job_whose_sweep_has_ended_does_not_come_back(
    code: int, slurm: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "stubs" / "dtbench").write_text(f"#!/bin/bash\nexit {code}\n")
    job = subprocess.Popen(["bash", str(SLURM)], env=slurm, start_new_session=True)
    try:
        assert job.wait(timeout=200) == code
    finally:
        os.killpg(job.pid, signal.SIGKILL)
    assert not (tmp_path / "scontrol.log").exists()
