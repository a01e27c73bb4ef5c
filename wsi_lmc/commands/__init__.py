"""One module a command: parse, one call, print. Loaded by :mod:`wsi_lmc.cli` only when its command is run."""
