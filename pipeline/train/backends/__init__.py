"""Code that needs torch, transformers, trl, peft or unsloth."""
