"""Ctrl-C while a model learns."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from rll_tf.progress import say

STATUS = 130  # a shell's for what Ctrl-C ended


class Interrupt(contextlib.ExitStack):
    """Within this context Ctrl-C lets a training step end; a second one ends the process at once.

    Nothing changes where SIGINT is ignored, or outside the main thread, where Python handles no signals.

    Attributes:
        pressed: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pressed = False
        self._waits = True

    def __enter__(self) -> Interrupt:
        super().__enter__()
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
            return self
        # Python's own handler runs only after TensorFlow returns, which takes as long as a step: a thread
        # reads the signals as they come.
        self._reader, writer = socket.socketpair()
        writer.setblocking(False)
        listener = threading.Thread(target=self._listen, daemon=True)
        listener.start()
        self.callback(listener.join)  # after the writer is closed
        self.enter_context(writer)
        self.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno()))
        self.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, self._press))
        return self

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this context there is no step to wait for: Ctrl-C raises KeyboardInterrupt."""
        self._waits = False
        if self.pressed:
            raise KeyboardInterrupt
        yield
        self._waits = True

    def _press(self, number: int, frame: object) -> None:
        self.pressed = True
        if not self._waits:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        presses = 0
        with self._reader:
            while received := self._reader.recv(1):
                presses += received[0] == signal.SIGINT
                if presses > 1:
                    os._exit(STATUS)  # files are whole at any time, see `rll_tf.files`
                if self._waits:
                    say("Ctrl-C: this step is finished and saved; a second Ctrl-C ends at once")
