# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["nx-27017==0.8.1"]
# ///
"""An emulator of MongoDB: `nx.py FOLDER PORT`. It ends with its parent."""

from __future__ import annotations

import ctypes
import signal
import sys

from nx_27017.nx_27017 import main

PR_SET_PDEATHSIG = 1

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
folder, port = sys.argv[1:]
files = ["--log-file", f"{folder}/nx.log", "--pid-file", f"{folder}/nx.pid"]
sys.argv = ["nx-27017", "--data-dir", f"{folder}/data", "--host", "127.0.0.1", "--port", port, *files]
main()
