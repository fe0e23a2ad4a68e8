"`python -m llmbook` is `llmbook`."
from llmbook.cli import main

if __name__ == '__main__': main()
