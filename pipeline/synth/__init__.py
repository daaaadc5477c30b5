"""Make conversations with exact ground truth: a program decides and executes the calls, phrase banks give the words."""
