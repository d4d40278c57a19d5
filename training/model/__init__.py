"""The network and all that must travel with it: labels, preprocessing, layers, checkpoint.

A leaf: it imports torch, safetensors and the standard library, nothing of this project.
"""
