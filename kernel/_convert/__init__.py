"""Plain values, as TOML and JSON have them, to typed objects and back.

In come a value and an annotation, out comes an object or one sentence that says where and why not. Read `payload.py`
first for messages, `structure.py` for tables of the manifest.
"""
