"""The stores, one folder each; a folder is named after its URL scheme."""
