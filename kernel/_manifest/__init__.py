"""The text of a manifest and what is installed, before anything is made of them.

In come a file and entry points, out come a `Manifest` that knows the line of each value, and a `Registry`. Read
`manifest.py: load` first.
"""
