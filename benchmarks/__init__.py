"""How fast, against what, and how close to the floor."""
