"""Bytes to messages and back, for both protocols, without any I/O.

``lines`` cuts the bytes into lines, ``text`` holds the rules that every line of JSON obeys,
``harpd`` and ``dispatcher`` have the messages of the two protocols.
"""
