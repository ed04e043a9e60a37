"""The commands and the recipes."""
