"""Code that needs torch, transformers, peft, gguf, libgguf or numpy."""

import os

# Before torch loads its OpenMP. Spinning idle threads starve everything else on a busy machine: the gate's reference
# passes took 51 s without and 13 s with it on two shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
