"""Conversation -> training text: the one implementation that the preview shows and training trains on."""
