"""How stages run: one Prefect flow per DVC stage, each a thin plan over the `ecavatar` library.

The settings below are made here because Prefect and numpy read them once, when they are imported, and a flow module's
imports may come before any other line of ours. A value that is already in the environment is kept.
"""

import os
from pathlib import Path

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": str(Path(__file__).resolve().parent.parent / ".prefect"),  # not the user's: no profile leaks in
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # a server that is told to stop logs pages about unflushed events
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # 20 s, the default, was seen to be too short
    # Tasks are the parallelism. A BLAS pool beside them gains nothing on small matrices, and OpenBLAS joins its pool in
    # fork(): a task that starts ffmpeg while another one multiplies was seen to wait for ever.
    "OPENBLAS_NUM_THREADS": "1",
}

for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
