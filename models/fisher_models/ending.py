"""How both command lines end."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Call it and end the process with the code that it returns; with 1, and its traceback, where it raises.

    The interpreter's own end is left out. There OpenVINO frees its graphs, and crashed in one of hundreds of ends (exit
    -11) when all was done and stored; and there all threads are waited for, also one that asks for a name and is not
    answered for a minute. What is ours is closed by now.
    """
    try:
        code = main()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None: closed by whoever called
                stream.flush()
    except Exception as error:  # noqa: BLE001 (the interpreter would print it, too)
        code = 1
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            os.write(2, b"the output is not complete: no space left on device\n")
        elif not isinstance(error, BrokenPipeError):  # its reader has gone, and knows why
            traceback.print_exc()
    os._exit(code)
