"How ranks find each other: the environment says who a process is and where to meet; whoever waits long says for whom."
import os
import re
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from .core import UserError

PATIENCE = 600, 10 # seconds until a rank gives up, and after which it says for whom it waits
_FIX = "start all ranks with a launcher such as torchrun, or unset RANK and WORLD_SIZE"


def number_of(
    name:str, # of an environment variable
    default:int, # if it is not set
)->int: # from 0 on
    "Read a number from the environment. Raises `UserError` for what is none."
    text = os.environ.get(name, str(default))
    if re.fullmatch('[0-9]{1,9}', text): return int(text)
    raise UserError(f"{name}={text}: not a whole number from 0 on; {_FIX}")


def who_am_i()->tuple[int, int, int, int]: # rank, world, rank on this machine, ranks on this machine or 0
    "What the environment says about this process. Raises `UserError` where that makes no sense."
    rank, world, local = number_of('RANK', 0), number_of('WORLD_SIZE', 1), number_of('LOCAL_RANK', 0)
    beside = number_of('LOCAL_WORLD_SIZE', 0) or number_of('LOCAL_SIZE', 0) # the latter is DeepSpeed's
    if rank < world: return rank, world, local, beside
    raise UserError(f"RANK={rank}: must be less than WORLD_SIZE={world}; {_FIX}")


def meeting_place()->tuple[str, int]: # a file and 0, or host and port
    "Where the ranks meet. Raises `UserError` where the environment does not say."
    store = os.environ.get('LLMBOOK_STORE', '')
    if store.startswith('file:///'): return store.removeprefix('file://'), 0
    if store: raise UserError(f"LLMBOOK_STORE={store}: only `launch` sets it, to a file; unset it")
    host = os.environ.get('MASTER_ADDR', '')
    if not host: raise UserError(f"MASTER_ADDR: not set, although RANK and WORLD_SIZE are; {_FIX}")
    if 'MASTER_PORT' not in os.environ: raise UserError(f"MASTER_PORT: not set, although MASTER_ADDR is; {_FIX}")
    port = number_of('MASTER_PORT', 0)
    if port < 1 << 16: return host, port
    raise UserError(f"MASTER_PORT={port}: ports end at 65535; {_FIX}")


class Wait:
    "What a rank says while it waits for others, and when it gives up."
    def __init__(self,
        rank:int, # ours
        world:int, # ranks
        place:str, # where they meet
        say:Callable[[str], None], # what is done with a line
    ):
        self.rank, self.world = rank, world
        self.place, self.say = place, say
        self.began, self.said = time.monotonic(), 0
        self.patience, self.every = PATIENCE

    def moment(self,
        missing:Callable[[], list[int]], # asks for the ranks that are not there
        speaks:Callable[[list[int]], bool], # does this rank speak, if those are missing?
        reason:str='', # why they cannot be reached
    ):
        "Wait a moment. Raises `UserError` if it has been too long."
        time.sleep(0.1) # in this time a signal is heard
        waited = time.monotonic() - self.began
        if waited < min(self.patience, (self.said + 1)*self.every): return
        self.said += 1
        gone = missing()
        if not gone: return
        over = waited >= self.patience
        who = self.names(gone)
        if speaks(gone) and not over: self.say(f"rank {self.rank} waits for {who} at {self.place}{reason}")
        if not over: return
        if not speaks(gone): os._exit(2)
        raise UserError(f"the ranks do not meet at {self.place}: {who} did not come within {waited:.0f} s{reason}; "
                        "start as many as WORLD_SIZE says, with an address and port that all of them reach")

    def names(self,
        gone:list[int], # at least one
    )->str: # such as 'ranks 1, 2 of 4'
        "Ranks in words."
        shown = ', '.join(map(str, gone[:8]))
        if len(gone) > 8: shown += f' and {len(gone) - 8} more'
        return f"rank{'s' if len(gone) > 1 else ''} {shown} of {self.world}"


def _reach(
    wait:Wait, # of this rank
    host:str, # where the server is to be
    port:int, # on which it listens
    speaks:bool, # does this rank say for whom it waits?
):
    "Wait until something answers there: PyTorch would wait in silence, and no signal could interrupt it."
    while True:
        try: return socket.create_connection((host, port), 2).close()
        except OSError as e: reason = f' ({(e.strerror or str(e)).lower()})'
        wait.moment(lambda: [0], lambda gone: speaks, reason)


def _open_store(
    wait:Wait, # of this rank
    host:str, # or a file
    port:int, # 0 for a file, or for any
    local:int, # number of this rank on its machine
)->dist.Store: # that all ranks reach
    "Open the store, which rank 0 keeps unless torchrun does. Raises `UserError` if it cannot be had."
    if os.environ.get('LLMBOOK_STORE'): return dist.FileStore(host, wait.world)
    serves = wait.rank == 0 and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True'
    if not serves: _reach(wait, host, port, wait.rank == 1 or local == 0)
    minute = timedelta(minutes=1)
    try: return dist.TCPStore(host, port, wait.world, serves, minute, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"the ranks do not meet at {wait.place}; is the port free? ({reason})") from None


def meet(
    rank:int, # ours
    world:int, # ranks
    local:int, # number of this rank on its machine
    say:Callable[[str], None], # what is done with a line about whoever is missing
)->dist.Store: # that all ranks reach
    "Open the store, sign in, wait for all. Raises `UserError` if they do not meet."
    host, port = meeting_place()
    wait = Wait(rank, world, f'{host}:{port}' if port else host, say)
    store = _open_store(wait, host, port, local)
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', 0) # restarts share one store
    board = dist.PrefixStore(f'llmbook/{restart}', store)
    here = [f'here{r}' for r in range(world)]
    if board.add(here[rank], 1) > 1:
        raise UserError(f"RANK={rank}: another process at {wait.place} has the same; give each rank its own")
    def missing(): return [r for r in range(world) if not board.check(here[r:r + 1])]
    def is_lowest(gone): return all(r in gone for r in range(rank))
    try:
        while not board.check(here): wait.moment(missing, is_lowest)
    except RuntimeError: # the connection is lost
        lost = "the store ended meanwhile, and with it rank 0 or the launcher"
        raise UserError(f"the ranks do not meet at {wait.place}: {lost}") from None
    return store
