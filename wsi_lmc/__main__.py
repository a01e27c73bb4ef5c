"""``python -m wsi_lmc`` is the same as ``wsi-lmc``."""

from wsi_lmc.cli import main

if __name__ == "__main__":
    main()
