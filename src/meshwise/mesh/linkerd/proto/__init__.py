"""The part of Linkerd's proxy API that meshwise speaks; `generate.py` makes the modules from the .proto files."""
