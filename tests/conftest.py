"""The whole run has the strictest umask that people use: what depends on a looser one fails here."""

from __future__ import annotations

import os

os.umask(0o077)
