"""Code that needs gguf, torch and safetensors."""
