"""What holds for every test."""

import os

# One thread for torch, as the service has it: where processes share two cores, torch's threads
# wait for each other, and tests of small networks took five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
