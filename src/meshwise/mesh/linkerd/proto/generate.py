"""Makes the `*_pb2.py` of this folder from its .proto files: `python -m meshwise.mesh.linkerd.proto.generate`.

Needs grpcio-tools (the `dev` extra). The result is committed, so that a user needs no compiler; a test says
when it is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[3]


def generate(target: Path) -> int:
    """Writes `meshwise/mesh/linkerd/proto/*_pb2.py` below `target`; 0 when all is well."""
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path.relative_to(ROOT)) for path in sorted(HERE.glob("*.proto"))]
    return int(protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={target}", *files]))


if __name__ == "__main__":
    sys.exit(generate(ROOT))
