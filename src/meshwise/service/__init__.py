"""The program under load: one node of a call graph, cheap enough that the proxy is what one measures.

`spec` and `plan` say what a node is and what a request asks of it, `behaviour` decides; `http1_*` and
`http2_*` are codecs without sockets; `link`, `upstreams` and `node` do the input and output.
"""
