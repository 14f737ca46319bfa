"""What clients see of a deployment while it is disturbed, and the judgement over it."""
