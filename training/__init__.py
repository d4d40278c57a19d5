"""From images to the checkpoint: data, augmentation, training, evaluation, export.

Never imports `service`. `training.model` is the part that the service carries.
"""
