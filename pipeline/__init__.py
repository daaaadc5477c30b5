"""llmops pipeline: operations from raw rows to a served, tool-calling agent.

Importing this package imports nothing else; see ``pipeline/operations.py`` for the catalogue.
"""

import os

__version__ = "0.1.0"

# Before torch or llama.cpp loads OpenMP, whose threads otherwise spin between operators and wait for each other on a busy
# machine (decision 0094). Child processes inherit it; a value that the user set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tensors of over 2 MB in pages of 2 MB: fewer page faults, 10 % less training time in 32 bits (decision 0095). Read by torch.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
