"""The command line with one rank that misbehaves: `FAULT=kind,rank,step`. `test_launcher.py` starts it in place of cli.py."""
import math
import os
import signal
import time
from pathlib import Path

from llmbook.cli import main
from llmbook.core import UserError
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.train.clm import CLM

KIND, RANK, STEP = os.environ['FAULT'].split(',')
step, share = DeepSpeedEngine.step, CLM.loss


def misbehave(engine, *args):
    if engine.steps == int(STEP) and engine.rank == int(RANK):
        Path(os.environ['MARK']).touch()
        if KIND == 'error': raise ZeroDivisionError('on purpose')
        if KIND == 'mistake': raise UserError('--batch-size 3: on purpose')
        if KIND == 'hang': time.sleep(1000)
        if KIND == 'stop': os.kill(os.getpid(), signal.SIGSTOP)
        if KIND == 'kill': os.kill(os.getpid(), signal.SIGKILL)
        if KIND == 'exit': os._exit(0)
    CLM.loss = poisoned if KIND == 'nan' and engine.steps == int(STEP) and engine.rank == int(RANK) else share
    return step(engine, *args)


def poisoned(*args): return share(*args)[0] * math.nan, {}


DeepSpeedEngine.step = misbehave
main()
