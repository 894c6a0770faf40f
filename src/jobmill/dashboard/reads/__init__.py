"""What the dashboard asks its stores: for pages and for /api alike.

Each read costs a number of statements that does not depend on how many jobs there are.
"""
