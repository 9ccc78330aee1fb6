"""The shipper as the agent's child: started, told of new data, started again when it ends, and told to end."""

import asyncio
import contextlib
import logging
import os
import threading
from typing import Final

log = logging.getLogger(__name__)
_STOP_S: Final = 10.0
#: Seconds before it is started again: at first, and at most.
_RESTART_S: Final = (1.0, 30.0)


class ShipperChild:
    """Keeps `command` running, with a pipe of hints as its standard input; the pipe's end says that the agent is gone.

    One pipe serves every child in turn, so a hint may be given at any time and by any thread. Each inherits `fds`.
    """

    def __init__(self, command: list[str], fds: tuple[int, ...] = ()) -> None:
        self._command = command
        self._fds = fds
        #: How often it ended by itself.
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._lock = threading.Lock()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._running = asyncio.create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether a child runs now."""
        return self._process is not None and self._process.returncode is None

    def hint(self) -> None:
        """Say that there is new data; never waits, and does nothing after `stop`."""
        # A pipe that is full of hints already says what this one would.
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._write_fd >= 0:
                os.write(self._write_fd, b"\n")

    async def stop(self) -> bool:
        """Let it send what there is, then end; True when all of it was acknowledged."""
        self._running.cancel()
        with self._lock:
            os.close(self._write_fd)
            self._write_fd = -1
        os.close(self._read_fd)
        process = self._process
        if process is None or process.returncode is not None:
            return False
        try:
            return await asyncio.wait_for(process.wait(), _STOP_S) == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = _RESTART_S[0] / 2
        while True:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=self._read_fd, start_new_session=True, pass_fds=self._fds
            )
            started_s = loop.time()
            code = await self._process.wait()
            self.restarts += 1
            # Doubled while it keeps failing at its start, so that an absent broker is a line now and then, not a flood.
            wait_s = _RESTART_S[0] if loop.time() - started_s > _RESTART_S[1] else min(wait_s * 2, _RESTART_S[1])
            log.error(
                "the shipper ended with code %d, started again in %.0f s; records wait in the spool", code, wait_s
            )
            await asyncio.sleep(wait_s)
