"""What `nbdev-docs` hands to Quarto, made in the folder in which this runs, without Quarto: `python staging.py`.

Prints a JSON list of the notebooks that could not be staged, each with the reason. A process of its own, since staging
runs every exported cell.
"""
import gc
import json
import os
import sys
from functools import cache
from pathlib import Path

import nbdev.config
import nbdev.processors
import nbdev.quarto
import nbdev.serve_drv

FAILED, stage_one = [], nbdev.serve_drv.main


def stage(job):
    "One file; a failure is noted, and the others go on."
    try: stage_one(job)
    except Exception as e: FAILED.append(f'{job[0].name}: {" ".join(str(e).split())}')


sys.path.insert(0, str(Path(__file__).resolve().parents[2])) # for tests.book.sitepages
gc.disable() # a short life
os.environ['MPLBACKEND'] = 'agg'
nbdev.serve_drv.main = stage
nbdev.quarto._ensure_quarto = lambda: None
nbdev.processors.get_config = cache(nbdev.config.get_config) # else pyproject.toml is read once for every cell
Path('_proc').mkdir(exist_ok=True)
nbdev.quarto._pre_docs(n_workers=0)
print(json.dumps(FAILED))
