"""The exported model: how it is written, checked, loaded, served and called."""
