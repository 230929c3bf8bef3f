"""Starts the worker on the process's standard input and output."""

import ctypes
import os
import signal
import sys

from . import wire


PR_SET_PDEATHSIG = 1


def _end_with_client() -> None:
    """A worker that hangs does not see its pipe close: the system ends it with the client."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    # The client owns the worker's end: it closes the pipe. An interrupt typed at the terminal reaches
    # the whole process group and must not tear an answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        _end_with_client()
        os.environ.setdefault("MUJOCO_GL", "egl")
    # One worker drives one core: neither the linear algebra nor the software rasteriser may spread
    # over the cores of the others.
    for name, threads in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
        os.environ.setdefault(name, threads)
    channel = wire.Channel.over_standard_streams()

    from .worker import Worker

    worker = Worker()
    try:
        worker.serve(channel)
    except wire.Broken as error:
        print(f"pixio_simulators: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    finally:
        worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
