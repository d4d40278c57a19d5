"""The network, and everything that is stored with it: labels, preprocessing, layers, checkpoint.

It imports torch, numpy, Pillow, safetensors and the standard library, nothing else of this project.
"""
