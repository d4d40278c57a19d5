"""The Open Inference Protocol (v2, REST), as KServe and Triton speak it.

    body ─▶ inflate ─▶ requests ─▶ recognise ─▶ answers ─▶ body
    (loop)  (thread)   (thread)    (loop)       (loop)

`endpoints` connects them, `messages` defines the protocol's JSON, `metadata` describes the model.
"""
