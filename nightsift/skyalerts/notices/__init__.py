"""Notices of all senders as one type, and the inbox that stores them."""
