"""The exported artefact: how it is written, checked and asked."""
