"""Ground floor: the comparison of anchors with a bank, and the measures around it. torch and numpy only."""
