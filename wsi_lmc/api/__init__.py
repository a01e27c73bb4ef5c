"""The library as small as the command line: the functions that :mod:`wsi_lmc` exports.

``slides`` goes from a slide to its tiles and needs no torch, ``learning`` from tiles to an encoder, features and an
evaluation; ``settings`` names the keywords of both, which are the command line's flags. Each function composes what
the commands are made of, and adds nothing to it.
"""
