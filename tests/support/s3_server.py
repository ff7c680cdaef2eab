"""An S3 server on this machine, as tests of results at an address need it."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """host:port of a server with an empty bucket named bucket; credentials are in the environment meanwhile."""
    log = folder / "moto.log"
    command = os.environ.get("DTBENCH_MOTO_SERVER")  # not any on PATH: older versions answer other than S3
    if not command:
        pytest.skip("DTBENCH_MOTO_SERVER is not set: `make s3` installs moto_server, and `make test` sets it")
    before = dict(os.environ)
    os.environ.update(CREDENTIALS)
    with (
        log.open("w") as out,
        subprocess.Popen([command, "-H", "127.0.0.1", "-p", "0"], stdout=out, stderr=out) as process,
    ):
        try:
            yield _with_bucket(_port(process, log))
        finally:
            process.kill()
            os.environ.clear()
            os.environ.update(before)


def address(server: str, path: str) -> str:
    """The address of a folder in the bucket."""
    return f"s3://bucket/{path}?endpoint_override={server}&scheme=http"


def files(server: str, path: str) -> dict[str, bytes]:
    """Every file below a folder of the bucket."""
    system = _system(server)
    return {name: system.open_input_file(f"bucket/{path}/{name}").read() for name in names(server, path)}


def names(server: str, path: str) -> list[str]:
    """The name of every file below a folder of the bucket, which is asked for nothing else."""
    found = _system(server).get_file_info(fs.FileSelector(f"bucket/{path}", recursive=True, allow_not_found=True))
    return [info.path.removeprefix(f"bucket/{path}/") for info in found if info.is_file]


def _system(server: str) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=server, scheme="http", region="us-east-1", allow_bucket_creation=True, **_keys()
    )


def _keys() -> dict[str, str]:
    return {"access_key": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secret_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}


def _with_bucket(server: str) -> str:
    _system(server).create_dir("bucket")
    return server


def _port(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
