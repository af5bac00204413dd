"""Telling webhooks: who wants to be told of which task, and how it reaches them, at least once and in order."""
