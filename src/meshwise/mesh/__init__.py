"""One package per mesh: what a posture is in that mesh, and its proof."""
