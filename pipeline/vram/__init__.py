"""Will it fit? Parameters, memory of training and serving, and what this machine has."""
