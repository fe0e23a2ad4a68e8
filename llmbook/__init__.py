"Build a language model from raw text: each chapter is a notebook, and each notebook is a module of this library."

__version__ = "0.1.0"
