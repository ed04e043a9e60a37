"""The `convnet` recipe at the glyphs' own 32 px: what `make demo` trains.

rll train glyphs
"""

import dataclasses

from trainers.recipes import convnet

DATA = "glyphs"
SETTINGS = dataclasses.replace(convnet.SETTINGS, input_px=32, steps=400)
