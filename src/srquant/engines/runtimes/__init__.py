"""Engines, one a file: a row, ``TARGET``, and the function ``compiled``. Nothing heavy is imported before its use."""
