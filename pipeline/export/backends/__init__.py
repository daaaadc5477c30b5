"""Code that needs torch, transformers, peft, gguf, libgguf or numpy."""
