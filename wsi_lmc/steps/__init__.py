"""The units of work: one slide, one stage. Picklable tasks in, a small outcome out, harmless when run twice.

A step decides "is it done?" by fingerprints, under the slide's lock; it raises a :class:`~wsi_lmc.errors.SlideError`
or :class:`~wsi_lmc.errors.StoreError` where a slide cannot be processed, and whoever runs it makes that an outcome.
Import the step that is meant (``steps.tile``, ``steps.embed``): only the second needs torch.
"""
