"""The Open Inference Protocol (v2, REST), as KServe and Triton speak it.

    body ─▶ inflate ─▶ requests ─▶ recognise ─▶ answers ─▶ body
    (loop)  (thread)   (thread)    (loop)       (loop)

`endpoints` joins them, `messages` is what the protocol's JSON looks like, `metadata` what the one
model says of itself.
"""
