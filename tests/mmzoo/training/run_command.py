"""`python run_command.py fit ...` is `mmzoo fit ...`, with a stand-in where the Hub part is not there yet."""

import importlib.util
import sys
import types

if importlib.util.find_spec("mmzoo.hub.save") is None:
    stand_in = types.ModuleType("mmzoo.hub.save")
    stand_in.save_model = lambda model, folder, processor=None, card=None: model.save_pretrained(folder)
    sys.modules["mmzoo.hub.save"] = stand_in

if __name__ == "__main__":
    from mmzoo.cli import main

    sys.exit(main())
