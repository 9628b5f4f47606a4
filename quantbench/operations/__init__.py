"""Operations: each command's work, once for the command line and for Python.

The plain verb takes one reference and returns one noun; its `_all` form takes many and yields as it goes. Import from
the files: listing models should not have to wait for what runs them.
"""
