"""One server a file, each as its documentation shows it; started by `benchmarks.serving.server`.

All read PORT, WORKERS and ENGINE from the environment and answer POST /predict on 127.0.0.1.
"""
