"A bar on a terminal and in a notebook, a plain line now and then elsewhere."
import math
import sys
import time
from html import escape

from tqdm import tqdm

def in_notebook()->bool: # False on a terminal, and in a test
    "Are the outputs of this process drawn on a page, where they can be drawn again?"
    shell = 'IPython' in sys.modules and sys.modules['IPython'].get_ipython()
    return hasattr(shell, 'kernel')


class NotebookBar:
    "A bar in a notebook. When it closes, the count stays, without the speed, which is another one every time."
    def __init__(self,
        total:int, # steps in all
        desc:str, # what is being done
        n:int=0, # steps already done
    ):
        from IPython.display import display
        self.total, self.desc, self.n, self.note, self.drawn = total, desc, n, '', 0.0
        self.view = display(self.page(), raw=True, display_id=True)
    def page(self)->dict: # MIME type -> text
        "The bar as it stands."
        text = f'{self.desc} {self.n}/{self.total}  {self.note}'.strip()
        bar = f'<progress max="{self.total}" value="{self.n}" style="width: 40%; vertical-align: middle"></progress>'
        return {'text/plain': text, 'text/html': f'<div style="margin: 0 8px">{bar} {escape(text)}</div>'}
    def set_postfix_str(self, note:str, refresh:bool=False):
        "What stands behind the bar when it is drawn next."
        self.note = note
    def update(self, n:int):
        "Move on by `n` steps; draw five times a second at most."
        self.n += n
        if time.monotonic() - self.drawn < 0.2: return
        self.drawn = time.monotonic()
        self.view.update(self.page(), raw=True)
    def write(self, line:str, file=None):
        "Print a line below the bar."
        print(line, flush=True)
    def close(self):
        "Leave the count alone."
        self.note = ''
        self.view.update(self.page(), raw=True)


class Progress:
    "A bar on a terminal and in a notebook; elsewhere a plain line now and then."
    def __init__(self,
        total:int, # steps in all
        desc:str='', # what is being done
        start:int=0, # steps already done
        every:float=15, # seconds between plain lines
        hidden:bool=False, # say nothing: another process does
    ):
        self.total, self.desc, self.n, self.every, self.start = total, desc, start, math.inf if hidden else every, start
        if hidden: self.bar = None
        elif sys.stderr.isatty(): self.bar = tqdm(total=total, initial=start, desc=desc, leave=False, dynamic_ncols=True)
        else: self.bar = NotebookBar(total, desc, start) if in_notebook() else None
        self.began = self.said = time.monotonic()
    def update(self,
        n:int=1, # steps since the last call
        note:str='', # such as 'loss 1.23, 15k tokens/s'
    ):
        "Move on by `n` steps and show `note`."
        self.n += n
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            return self.bar.update(n)
        now = time.monotonic()
        if now - self.said < self.every: return
        self.said, pace = now, (now - self.began) / max(1, self.n - self.start)
        print(f"{self.desc} {self.n}/{self.total}  {note}  {pace * (self.total - self.n):.0f} s left", flush=True)
    def write(self,
        line:str, # a whole line
    ):
        "Print a line without breaking the bar."
        if self.bar is not None: self.bar.write(line, file=sys.stdout)
        else: print(line, flush=True)
    def __enter__(self): return self
    def __exit__(self, *_):
        if self.bar is not None: self.bar.close()
    def close(self):
        "Take the bar away."
        self.__exit__()
