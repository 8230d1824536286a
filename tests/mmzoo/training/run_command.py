"""`python run_command.py fit ...` is `mmzoo fit ...`, with this folder's modules in reach."""

import sys

if __name__ == "__main__":
    from mmzoo.cli import main

    sys.exit(main())
