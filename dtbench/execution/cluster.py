"""Start or join Ray without telemetry, and check that every node can run the trials."""

import functools
import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtbench import foreign, registry
from dtbench.data import cache
from dtbench.data.dataset import digest_of
from dtbench.errors import DtbenchError, MissingDataset, one_line
from dtbench.execution.guard import guarded
from dtbench.execution.watch import watched
from dtbench.ledger import lock, provenance
from dtbench.ledger.store import write_bytes
from dtbench.ledger.trial_spec import TrialSpec

if TYPE_CHECKING:  # pyarrow's filesystems are for results at an address
    from dtbench.ledger.remote import Remote

PACKAGES = ("dtbench", "torch", "numpy", "gymnasium", "mujoco", "ale-py", "pandas", "pyarrow", "ray")
CONNECT_SECONDS = 30.0
ALIVE_SECONDS = 3.0  # a node may outlive a worker that died with it by this long
LINE = 400  # maximum number of characters of an error
SESSIONS = (Path(os.environ.get("RAY_TMPDIR") or "/tmp"), "dtbench-ray")  # short: names of sockets are limited
_NO_METADATA = "AWS_EC2_METADATA_DISABLED"

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would swallow Ctrl-C and return normally
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # causes are in trials' directories
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class RunContext:
    """The facts of a run that its workers need."""

    run_id: str
    root: Path  # of the ledger
    remote: "Remote | None"  # the address of the ledger, if any
    is_local: bool  # on a Ray of this machine alone
    lock_holder: Mapping[str, Any] | None  # the driver's record in the ledger's lock
    environment: Mapping[str, str]
    working_dir: Path
    plugin_files: Mapping[str, bytes]  # path below the working directory -> content
    versions: Mapping[str, str]
    datasets: Sequence[TrialSpec]  # one trial of each dataset
    stop_signal: str  # name of the StopFlag actor
    checkpoint_seconds: float
    tracker: str = ""  # that follows the trials
    oom_retry: bool = False  # whether trials that ran out of memory run again, on more resources


@contextmanager
def ray_started(address: str | None = None) -> Iterator[None]:
    """Start a Ray for this process, or join the cluster at `address`, without output and telemetry.

    Files of a Ray of our own are removed when it ends; those of a killed run by the next one.

    Raises DtbenchError where Ray cannot start or refuses the connection, RayDied where a Ray of our own dies.
    """
    import ray

    changed = {name: os.environ.get(name) for name in ("HOME", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    os.environ.update(QUIET)
    if address is not None:
        use_token()
        check_connection(address)
    try:
        with ExitStack() as stack:
            with _starting():
                own = {} if address else _own_settings(_guarded_directory(stack))
                stack.callback(ray.shutdown)
                _reload_authentication()
                ray.init(
                    address=address or "local",  # not RAY_ADDRESS
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    # Without credentials a worker would query the cloud's metadata address.
                    runtime_env={"env_vars": {_NO_METADATA: os.environ.get(_NO_METADATA, "true")}},
                    **own,
                )
            _restore_environment({"HOME": changed.pop("HOME")})
            with nullcontext() if address else watched(ray._private.worker.global_worker.node):
                yield
    finally:
        _restore_environment(changed)


def _guarded_directory(stack: ExitStack) -> Path:
    """Return a directory for a Ray of our own, whose processes end with `stack` or with this process."""
    directory = stack.enter_context(lock.process_directory(*SESSIONS))
    stack.enter_context(guarded(directory))
    return directory


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except DtbenchError:
        raise
    except Exception as error:  # where a node takes long to start, Ray raises no more than that
        hint = "Try again when the machine is less busy. `run` works without Ray too: --local."
        raise DtbenchError(f"Ray did not start: {one_line(str(error), LINE)}. {hint}") from error


def _own_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a Ray of our own with its files in `directory`; set its environment.

    Ray listens on every network interface: without the token of this run nobody else can have it run code. Its HOME
    has a file without which its dashboard queries the cloud's metadata address.
    """
    (directory / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n")
    os.environ.update(HOME=str(directory), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    return {"num_cpus": lock.processors(), "_temp_dir": str(directory)}


def _reload_authentication() -> None:
    """Have Ray read the mode and the token again: it does so once a process, when it is imported."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # of compiled code

    Config.initialize("")  # first, as its threads would look for the token of the former mode
    AuthenticationTokenLoader.instance().reset_cache()


def _restore_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def check_address(address: str) -> None:
    """Raise DtbenchError where nothing listens at host:port; Ray would wait for minutes."""
    if address == "auto":
        return
    match = re.fullmatch(r"(?:ray://)?([^:/\s]+):(\d{1,5})", address)
    if not match or int(match[2]) > 65535:
        raise DtbenchError(f"--address {address!r}: write auto, host:6379 or ray://host:10001.")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=5).close()
    except OSError as error:
        raise DtbenchError(f"no Ray at {address}: {error}. Start one: ray start --head --port {match[2]}.") from None


def use_token() -> None:
    """Authenticate with Ray's token file, if there is one, for clusters with RAY_AUTH_MODE=token."""
    paths = (os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token", "~/.ray/auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or any(Path(path).expanduser().is_file() for path in paths):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def check_connection(address: str) -> None:
    """Raise DtbenchError where the cluster refuses the connection; Ray's client would never return."""
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR')"
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    try:
        result = subprocess.run(command, stdout=pipe, stderr=subprocess.STDOUT, timeout=CONNECT_SECONDS, check=False)
        if result.returncode == 0:
            return
        output = result.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
    if "AuthToken" in output or "AuthenticationError" in output or "authentication token" in output:
        raise DtbenchError(
            f"the Ray at {address} asks for its token. Copy ~/.ray/auth_token from its head node, or set "
            "RAY_AUTH_TOKEN; in a trusted network, RAY_AUTH_MODE=disabled on all nodes turns tokens off."
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "it does not answer")
    raise DtbenchError(
        f"cannot join the Ray at {address} within {CONNECT_SECONDS:.0f} s: {one_line(last, LINE)}. See `ray status` "
        "there; RAY_AUTH_MODE must be the same on all nodes."
    )


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions that influence results: Python, packages, dtbench's code."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "code": _code_digest(), **provenance.versions(PACKAGES)}


def differences(wanted: Mapping[str, str]) -> str:
    """Return how this process's installation differs from the driver's; "" where it does not."""
    here = versions()
    return ", ".join(
        f"{name} {here.get(name)} (the driver has {wanted.get(name)})"
        for name in sorted(here.keys() | wanted.keys())
        if here.get(name) != wanted.get(name)
    )


def plugin_files(specs: Iterable[TrialSpec]) -> dict[str, bytes]:
    """Return the files of the trials' algorithms, tasks and environments below the working directory, by path."""
    specs = list(specs)
    paths = {registry.file_of(name) for spec in specs for name in (spec.algorithm, spec.task)}
    modules = [spec.task.split(":")[1] for spec in specs if spec.task.count(":") == 2]  # gym:MODULE:ID
    paths |= set(foreign.files_of_modules([*modules, *foreign.imports()]).values())
    local = [path for path in paths if path and path.is_relative_to(Path.cwd())]
    return {str(path.relative_to(Path.cwd())): path.read_bytes() for path in local}


def apply_environment(context: RunContext) -> None:
    """Set the driver's environment and working directory in this worker, or copy its plug-in files there.

    A node's DTBENCH_DATA is not changed: each node has its own cache.
    """
    for name, value in context.environment.items():
        if name != "DTBENCH_DATA" or name not in os.environ or context.is_local:
            os.environ[name] = value
    directory, files = context.working_dir, context.plugin_files
    if not all((directory / name).is_file() and (directory / name).read_bytes() == files[name] for name in files):
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
        directory = cache.root() / ".plugins" / digest
        for name, content in files.items():
            write_bytes(directory / name, content)
    if directory.is_dir():
        os.chdir(directory)


def prepare_data(specs: Sequence[TrialSpec]) -> str:
    """Open, download or generate the datasets in this node's cache and verify them; return an error, or ""."""
    for spec in specs:
        task, name = registry.make_task(spec.task, spec.task_options), spec.open_from or spec.dataset_source
        for source in task.sources:
            if source.name == name and source.fetch and not source.available():
                source.fetch()
        dataset = task.open(name)
        for digest, what in ((dataset.digest, "data are others"), (digest_of(dataset), "cached data are damaged")):
            if digest != spec.dataset_digest:
                return (
                    f"{spec.task}: its {what}: digest {digest[:12]}, planned {spec.dataset_digest[:12]}. "
                    f"Copy its directory from the driver's cache into {cache.root()}, or delete it there."
                )
    return ""


def check_node(context: RunContext) -> str:
    """Return why this node cannot run the trials, in one line; "" where it can."""
    if different := differences(context.versions):
        return f"another installation: {different}. Install the same on all nodes"
    if context.lock_holder and lock.owner(context.root) != context.lock_holder:
        return f"it does not see the results in {context.root}. Use a shared directory, or s3://bucket/path"
    try:
        apply_environment(context)
        foreign.add_imports(foreign.imports())
        return prepare_data(context.datasets)
    except MissingDataset as error:
        return f"{one_line(str(error), LINE)} (in {cache.root()} of that node)"
    except (DtbenchError, OSError) as error:
        return one_line(str(error), LINE)


def check_nodes(context: RunContext) -> None:
    """Check all nodes of the cluster in parallel; raise DtbenchError for the first that cannot run the trials."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    task = ray.remote(num_cpus=0, max_retries=0)(check_node)
    pinned = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes)
    answers = [task.options(scheduling_strategy=strategy).remote(context) for strategy in pinned]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            wrong = ray.get(answer)
        except ray.exceptions.RayError as error:
            if not is_alive(node["NodeID"]):
                continue
            wrong = f"dtbench does not start there: {one_line(str(error), LINE)}"
        if wrong:
            name = node.get("NodeManagerHostname") or node["NodeManagerAddress"]
            raise DtbenchError(f"node {name} ({node['NodeManagerAddress']}) cannot run trials: {wrong.rstrip('.')}.")


def node_id() -> str:
    """Return Ray's ID of this worker's node."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def is_alive(node: str) -> bool:
    """Return whether a node accepts connections for some seconds; Ray may take half a minute to notice that it died.

    A node without an ID ("") counts as alive.
    """
    deadline = time.monotonic() + ALIVE_SECONDS
    while time.monotonic() < deadline:
        if not _listens(node):
            return False
        time.sleep(0.2)
    return True


def most_cores() -> float:
    """Return the CPU cores of the largest node."""
    import ray

    return max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=1.0)


def _listens(node_id: str) -> bool:
    import ray

    for node in ray.nodes():
        if node["NodeID"] == node_id:
            try:
                socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
            except OSError:
                return False
            return bool(node["Alive"])
    return not node_id


def _code_digest() -> str:
    """Return a hash of the source files of dtbench and of every package with a registered algorithm."""
    digest = hashlib.sha256()
    for package in sorted({"dtbench", *registry.algorithm_packages()}):
        spec = importlib.util.find_spec(package)
        for directory in map(Path, (spec and spec.submodule_search_locations) or ()):
            for path in sorted(directory.rglob("*.py")):
                digest.update(json.dumps(f"{package}/{path.relative_to(directory)}").encode() + path.read_bytes())
    return digest.hexdigest()[:12]
