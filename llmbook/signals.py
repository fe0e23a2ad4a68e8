"Signals that ask a process to end: heard although the main thread is busy, or without effect while a message is written."
import os
import signal
import time
from contextlib import suppress

ASKED_TO_END = signal.SIGTERM, signal.SIGHUP, signal.SIGINT


def ignore_signals(
    *numbers:int, # of the signals
):
    """Let signals do nothing here, and what they always do in programs that this process starts.

    What a process ignores by SIG_IGN, every program that it starts ignores too; a handler is not handed down."""
    def nothing(number, frame): pass
    with suppress(ValueError): # not the main thread
        for number in numbers: signal.signal(number, nothing)


class Unheard:
    """Signals that came, and whose handler the main thread may not have run: it runs none inside of C code.

    To be made by the main thread. A handler that was replaced since, as the training loop does, is trusted."""
    def __init__(self):
        self.pipe, write = os.pipe() # Python writes a signal's number there at once
        for end in (self.pipe, write): os.set_blocking(end, False)
        self.handlers = {number: signal.getsignal(number) for number in ASKED_TO_END}
        self.came = None # the first signal, and when
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def number(self,
        after:float=1.0, # seconds in which the main thread may act itself
    )->int|None: # of the signal
        "A signal that asked this process to end some time ago."
        with suppress(BlockingIOError):
            for number in os.read(self.pipe, 100):
                if number in self.handlers: self.came = self.came or (number, time.monotonic())
        if self.came is None or time.monotonic() - self.came[1] < after: return None
        number = self.came[0]
        return number if signal.getsignal(number) is self.handlers[number] else None
