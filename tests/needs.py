"""Tests that want a package beyond the core.

Without it they are skipped, unless the make target that runs them has promised its extra: then they run, and fail.
"""
import os
from importlib.util import find_spec

import pytest

PROMISED = os.environ.get('LLMBOOK_EXTRAS', '').split(',')


def needs(module, extra):
    "The mark of a test, or of a module's tests, that want `module` of `extra`."
    missing = find_spec(module) is None and extra not in PROMISED
    return pytest.mark.skipif(missing, reason=f'{module} is not installed: pip install "llmbook[{extra}]"')
