"""Wire protocols without input or output: bytes in, completions out. No socket, no clock, no thread.

`seam` is the contract, `http1`, `http2`, `grpc` and `tcp` keep it; `frames` and `blocks` are HTTP/2's two
alphabets (RFC 9113 frames, RFC 7541 header blocks), usable from either side of a connection.
"""
