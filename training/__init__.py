"""From images to the checkpoint: data, augmentation, training, evaluation, export.

It never imports `service`. `training.model` is the part that the service imports.
"""
