"""Websockets: frames without I/O, and the socket that an application speaks to, over HTTP/1.1 or HTTP/2."""
