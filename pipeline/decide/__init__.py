"""Should one fine-tune at all? Facts of a use case in, a verdict with money and its tipping points out."""
