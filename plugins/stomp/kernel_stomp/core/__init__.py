"""STOMP without I/O: bytes in, frames out, and the other way round.

Read `frames.py` first, then `parser.py` and the way past it, `quick.py`. Source: STOMP 1.2 and 1.1.
"""

from __future__ import annotations

from .frames import Frame as Frame
from .frames import FrameError as FrameError
from .frames import Limits as Limits
from .frames import encode as encode
from .frames import encode_ack as encode_ack
from .frames import named as named
from .parser import Parser as Parser
from .parser import StompError as StompError
