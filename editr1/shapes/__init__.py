"""The shapes dataset: generated images and edits with known ground truth, and small models to train on them.

An image shows up to four coloured shapes. Its content can be read from the pixels, so the correct score of any edit can be
computed. The package also contains simulated labelling models and annotators.
"""
