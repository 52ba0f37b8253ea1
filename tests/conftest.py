"""What holds for the whole run of tests.

The strictest umask that people use: what depends on a looser one fails here. And no deadline for
examples of property tests, because a test asserts no time: the machine may be busy.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.umask(0o077)
settings.register_profile("meshwise", deadline=None)
settings.load_profile("meshwise")
