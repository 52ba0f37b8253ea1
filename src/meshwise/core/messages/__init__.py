"""The one catalogue of messages: code, fault, what, remedy. Codes are never reused.

A file per subject, each with its own hundred of codes; everyone reads them here, as `messages.NAME`.
"""

from meshwise.core.messages.analysis import *
from meshwise.core.messages.archive import *
from meshwise.core.messages.binaries import *
from meshwise.core.messages.environment import *
from meshwise.core.messages.load import *
from meshwise.core.messages.mesh import *
from meshwise.core.messages.series import *
from meshwise.core.messages.service import *
from meshwise.core.messages.study import *
from meshwise.core.messages.testbed import *
