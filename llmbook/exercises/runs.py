"What `grade` asks of the answers to the exercises of the chapter `runs`."
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch


def check_1(answer):
    "A file that survives a kill."
    def die(*_, **__): raise KeyboardInterrupt
    with TemporaryDirectory() as folder:
        path = Path(folder)/'state.txt'
        path.write_text('old')
        try:
            with patch('os.replace', die), patch('os.rename', die): answer(path, 'new')
        except KeyboardInterrupt: pass
        assert path.exists() and path.read_text() == 'old', "Killed before the rename, and the old file is gone."
        answer(path, 'new')
        assert path.read_text() == 'new', "The new text did not arrive."
        assert os.listdir(folder) == ['state.txt'], "Something was left lying about."
