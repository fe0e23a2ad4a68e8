"A bar on a terminal and in a notebook, a plain line now and then elsewhere."
import sys
import threading
from collections.abc import Callable
from html import escape
from typing import TextIO

from tqdm import tqdm


def _in_notebook()->bool: # False on a terminal, and in a test
    "Can the outputs of this process be drawn again, as a notebook's can?"
    if 'IPython' not in sys.modules: return False
    shell = sys.modules['IPython'].get_ipython()
    return hasattr(shell, 'kernel')


class Progress(tqdm):
    "A bar on a terminal and in a notebook; elsewhere a plain line now and then."
    monitor_interval = 0 # no thread beside the training
    _lock = threading.RLock() # tqdm's own takes a semaphore from the system
    view = None # the output of a notebook that shows the bar
    lost = None # the error that the last line met, once nobody reads it any more

    def __init__(self,
        total:int, # steps in all
        desc:str='', # what is being done
        start:int=0, # steps already done
        every:float=15, # seconds between plain lines
        hidden:bool=False, # show no bar: another process does
    ):
        self.on_terminal = sys.stderr.isatty()
        on_page = not self.on_terminal and _in_notebook()
        seconds = every
        if on_page: seconds = 0.2
        if self.on_terminal: seconds = 0.1
        super().__init__(
            total=total,
            initial=start,
            desc=desc,
            disable=hidden,
            mininterval=seconds,
            miniters=1,
            leave=False,
            dynamic_ncols=True,
            gui=not self.on_terminal, # then tqdm draws nothing itself
        )
        if on_page and not hidden:
            from IPython.display import display
            self.view = display(self._page(), raw=True, display_id=True)

    def _page(self)->dict: # MIME type -> text
        "What a notebook shows: HTML without JavaScript."
        text = f"{self.desc} {self.n}/{self.total}  {self.postfix or ''}".strip()
        style = 'width: 40%; vertical-align: middle'
        bar = f'<progress max="{self.total}" value="{self.n}" style="{style}"></progress>'
        page = f'<div style="margin: 0 8px">{bar} {escape(text)}</div>'
        return {'text/plain': text, 'text/html': page}

    def _try(self, draw:Callable, *args, **options):
        "Draw something. That nobody reads it is noted and ends nothing here: there may be work to save."
        try: return draw(*args, **options)
        except OSError as e: self.lost = self.lost or e

    def display(self, msg:str|None=None, pos:int|None=None):
        "Draw the bar, or print the line; tqdm calls this when it is time."
        if self.on_terminal: return self._try(super().display, msg, pos)
        if self.view is not None: return self.view.update(self._page(), raw=True)
        done = max(1, self.n - self.initial)
        seconds_per_step = (self._time() - self.start_t) / done
        seconds_left = seconds_per_step * (self.total - self.n)
        note = self.postfix or ''
        self._try(print, f"{self.desc} {self.n}/{self.total}  {note}  {seconds_left:.0f} s left", flush=True)

    def update(self, n:int=1, note:str=''):
        "Advance by `n` steps and show `note`, such as 'loss 1.23, 15k tokens/s'."
        self.set_postfix_str(note, refresh=False)
        super().update(n)

    def write(self, line:str, file:TextIO|None=None):
        "Print a line without breaking the bar, by default to standard output; warnings go to `sys.stderr`."
        file = file or sys.stdout
        if self.on_terminal and not self.disable: self._try(super().write, line, file=file)
        else: self._try(print, line, file=file, flush=True)

    def close(self):
        "Remove the bar; in a notebook the count stays, without the speed, which differs from run to run."
        if self.view is not None:
            self.postfix = ''
            self.view.update(self._page(), raw=True)
            self.view = None
        self._try(super().close)
