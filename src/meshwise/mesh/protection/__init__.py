"""What a posture stops: attempts as data, how they are carried out, and what came of them."""
